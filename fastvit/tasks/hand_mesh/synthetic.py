"""Synthetic images of hands with their ground truth: data for trials and tests, without license restrictions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image, ImageFilter
from scipy.spatial.transform import Rotation

from fastvit.data.datasets import LabeledImages
from fastvit.data.load import open_images
from fastvit.synthetic.scenes import make_scene
from fastvit.tasks.hand_mesh.camera import project
from fastvit.tasks.hand_mesh.hand_file import HandArrays, procedural_hand
from fastvit.tasks.hand_mesh.hand_model import HandModel
from fastvit.tasks.hand_mesh.poses import HandAxes, random_pose, random_view
from fastvit.tasks.hand_mesh.rasterizer import rasterize, vertex_normals
from fastvit.tasks.hand_mesh.skeleton import TURNING

# Focal length as a multiple of the image's side; about 2.1 for FreiHAND's crops.
_FOCAL = 2.1
# Extent of the hand and its largest distance from the center, as fractions of the image's side.
_EXTENT, _SHIFT = (0.6, 0.9), 0.05
_SPREAD = 0.7  # standard deviation of shape coefficients
# Skin colors in sRGB, from the darkest to the lightest.
_SKIN = np.array([[66.0, 41, 30], [122, 78, 56], [176, 122, 92], [214, 164, 134], [239, 202, 178]])
# Samples per pixel in each direction.
_FINER = 2
_NAIL = 0.008  # largest distance of a nail's vertices from the fingertip, in meters


@dataclass(frozen=True)
class SyntheticHand:
    """Synthetic image with its ground truth, see `fastvit.tasks.hand_mesh.freihand.HandGroundTruth`.

    Attributes:
        image: (H, H, 3) uint8, RGB.
        mask: (H, H) uint8, 255 for pixels of the hand, else 0.
        intrinsics: (3, 3) camera matrix, in pixels.
        pose: (48,) axis-angle, for the 15 joints relative to the hand model's mean pose.
        shape: (S,) shape coefficients.
        joints: (21, 3) joints in meters, on the camera's axes.
        vertices: (V, 3) vertices in meters, on the camera's axes.
    """

    image: np.ndarray
    mask: np.ndarray
    intrinsics: np.ndarray
    pose: np.ndarray
    shape: np.ndarray
    joints: np.ndarray
    vertices: np.ndarray


class HandMaker:
    """Generator of synthetic images of a hand.

    Args:
        hand: hand model.
        items: images of items for the backgrounds.
        side: height and width of the images, in pixels.
    """

    def __init__(self, hand: HandArrays, items: LabeledImages, side: int) -> None:
        self.hand, self.items, self.side = hand, items, side
        self._axes, self._model = HandAxes.of(hand), HandModel.of(hand, torch.float64)
        normals = vertex_normals(hand.template, hand.faces)
        self._palmar = np.clip(0.5 + normals @ self._axes.frame[2], 0, 1)
        tips = hand.template[hand.tips]
        gaps = np.linalg.norm(hand.template[:, None] - tips[None], axis=2).min(1)
        self._nail = ((gaps < _NAIL) & (normals @ self._axes.frame[2] < -0.2)).astype(np.float64)

    def make(self, generator: np.random.Generator) -> SyntheticHand:
        """Create an image; the state of the random generator determines it."""
        pose = random_pose(self._axes, generator)
        pose[0] = Rotation.from_matrix(random_view(self._axes, generator)).as_rotvec()
        shape = np.clip(generator.normal(0, _SPREAD, self.hand.shape_directions.shape[2]), -1.5, 1.5)
        with torch.no_grad():
            turns = torch.from_numpy(Rotation.from_rotvec(pose).as_matrix())[None]
            vertices, joints = (part[0].numpy() for part in self._model(turns, torch.from_numpy(shape)[None]))
        focal = _FOCAL * self.side
        intrinsics = np.array([[focal, 0, self.side / 2], [0, focal, self.side / 2], [0, 0, 1.0]])
        shift = self._placed(vertices, intrinsics, generator)
        vertices, joints = vertices + shift, joints + shift
        image, mask = self._render(vertices, intrinsics, generator)
        free = pose.reshape(-1) - np.concatenate([np.zeros(3), self.hand.pose_mean])
        return SyntheticHand(image, mask, intrinsics, free.reshape(3 * TURNING), shape, joints, vertices)

    def _placed(self, vertices: np.ndarray, intrinsics: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        """Draw a translation (3,) of the hand, so that it fills most of the image, near its center."""
        middle = (vertices.min(0) + vertices.max(0)) / 2
        wanted = generator.uniform(*_EXTENT) * self.side
        shift = np.array([0, 0, intrinsics[0, 0] * np.ptp(vertices[:, :2], axis=0).max() / wanted]) - middle
        goal = self.side * (0.5 + generator.uniform(-_SHIFT, _SHIFT, 2))
        for _ in range(3):  # repeat, because the perspective changes the extent
            seen = project(vertices + shift, intrinsics)
            low, high = seen.min(0), seen.max(0)
            shift[2] *= (high - low).max() / wanted
            shift[:2] += (goal - (low + high) / 2) * shift[2] / intrinsics[0, 0]
        return shift

    def _render(
        self, vertices: np.ndarray, intrinsics: np.ndarray, generator: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        size = (_FINER * self.side,) * 2
        raster = rasterize(_FINER * project(vertices, intrinsics), vertices[:, 2], self.hand.faces, size)
        colors, alpha = np.zeros((*size, 3)), raster.covered.astype(np.float64)
        normals = vertex_normals(vertices, self.hand.faces)
        looks = np.concatenate([self._skin(generator), normals, vertices], 1)
        seen = raster.interpolated(looks, self.hand.faces)
        colors[raster.covered] = _lit(seen[:, :3], seen[:, 3:6], seen[:, 6:9], generator)
        colors, alpha = (_coarser(part) for part in (colors, alpha[..., None]))
        ground = self._background(generator)
        blended = colors + (1 - alpha) * ground
        blurred = Image.fromarray(np.clip(blended, 0, 255).astype(np.uint8))
        blurred = blurred.filter(ImageFilter.GaussianBlur(generator.uniform(0, 0.004) * self.side))
        noisy = np.asarray(blurred, np.float64) + generator.normal(0, generator.uniform(0, 5), blended.shape)
        return np.clip(noisy, 0, 255).astype(np.uint8), np.where(alpha[..., 0] >= 0.5, 255, 0).astype(np.uint8)

    def _skin(self, generator: np.random.Generator) -> np.ndarray:
        """Draw the color of each vertex, (V, 3): an uneven skin tone, with lighter palm and nails."""
        tone = generator.uniform(0, len(_SKIN) - 1)
        low = min(int(tone), len(_SKIN) - 2)
        base = _SKIN[low] + (tone - low) * (_SKIN[low + 1] - _SKIN[low])
        base = base * generator.normal(1, 0.03, 3)
        darkness = 1 - tone / (len(_SKIN) - 1)
        colors = base + (self._palmar * (12 + 45 * darkness))[:, None] * np.array([1.0, 0.8, 0.75])
        waves = generator.normal(0, 90, (12, 3)), generator.uniform(0, 2 * np.pi, 12)  # radians per meter
        uneven = np.cos(self.hand.template @ waves[0].T + waves[1]).mean(1)
        colors = colors * (1 + 0.12 * uneven)[:, None] + 0.04 * uneven[:, None] * np.array([40.0, -10, -10])
        return colors + (0.35 * self._nail)[:, None] * (np.array([250.0, 215, 205]) - colors)

    def _background(self, generator: np.random.Generator) -> np.ndarray:
        """Draw a background (S, S, 3): a scene of items, blurred and with less saturated colors."""
        scene = make_scene(self.items, max(self.side, 64), generator)
        image = Image.fromarray(scene.image).resize((self.side, self.side))
        blur = ImageFilter.GaussianBlur(generator.uniform(0, 0.02) * self.side)
        pixels = np.asarray(image.filter(blur), np.float64)
        gray = pixels.mean(2, keepdims=True)
        pixels = gray + generator.uniform(0.1, 0.7) * (pixels - gray)
        return generator.uniform(40, 215) + generator.uniform(0.3, 0.9) * (pixels - pixels.mean())


def _lit(skin: np.ndarray, normals: np.ndarray, places: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Return the colors (N, 3) of points under two lights and ambient light, with specular reflections."""
    normals = normals / np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-9)
    view = -places / np.linalg.norm(places, axis=1, keepdims=True)
    normals = np.where((normals * view).sum(1, keepdims=True) < 0, -normals, normals)  # the inside of an open mesh
    total = np.full(len(skin), generator.uniform(0.2, 0.5))
    shine = np.zeros(len(skin))
    for strength in (generator.uniform(0.5, 0.8), generator.uniform(0, 0.3)):
        direction = generator.normal(size=3)
        direction[2] = -abs(direction[2]) - 0.3  # from the side of the viewer
        direction /= np.linalg.norm(direction)
        total += strength * np.clip(normals @ direction, 0, None)
        half = (view + direction) / np.linalg.norm(view + direction, axis=1, keepdims=True)
        shine += strength * np.clip((normals * half).sum(1), 0, None) ** 30
    warmth = generator.normal(1, 0.04, 3)
    return np.clip(skin * total[:, None] * warmth + 255 * generator.uniform(0, 0.15) * shine[:, None], 0, 255)


def _coarser(pixels: np.ndarray) -> np.ndarray:
    """Average squares of pixels, to reduce the supersampled image."""
    height, width, channels = pixels.shape
    squares = pixels.reshape(height // _FINER, _FINER, width // _FINER, _FINER, channels)
    return np.asarray(squares.mean((1, 3)))


def sample_hands(count: int, size: int = 224) -> list[Image.Image]:
    """Create images of the built-in hand; they are the same in each call."""
    maker = HandMaker(procedural_hand(), open_images("sample", "test"), size)
    return [Image.fromarray(maker.make(np.random.default_rng([0, index])).image) for index in range(count)]
