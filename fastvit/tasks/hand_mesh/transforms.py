"""Augmentation of training images of hands together with their targets."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from scipy.spatial.transform import Rotation
from torch import Tensor
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

from fastvit.data.pixels import fitted_size
from fastvit.model.preprocessing import Preprocessing
from fastvit.tasks.hand_mesh.camera import FLIP, moved, project, to_unit_square
from fastvit.tasks.hand_mesh.freihand import HandGroundTruth
from fastvit.tasks.hand_mesh.hand_file import HandArrays
from fastvit.tasks.hand_mesh.options import HandMeshOptions
from fastvit.tasks.hand_mesh.skeleton import ROOT, TURNING


@dataclass(frozen=True)
class AffineTransform:
    """Affine transform of an image, with the matching transform in space.

    Attributes:
        image: (3, 3) affine transform from pixels to pixels.
        space: (3, 3) rotation about the camera's axis, preceded by a mirroring if the image is flipped.
    """

    image: np.ndarray
    space: np.ndarray


def fitted(size: tuple[int, int], preprocessing: Preprocessing) -> AffineTransform:
    """Return the evaluation transform of an image of a height and width: resizing only."""
    height, width = fitted_size(size, preprocessing)
    return AffineTransform(np.diag([width / size[1], height / size[0], 1.0]), np.eye(3))


def varied(size: tuple[int, int], side: int, options: HandMeshOptions) -> AffineTransform:
    """Draw a training transform with torch's generator.

    Args:
        size: height and width of the image, in pixels.
        side: height and width of the result, in pixels.
        options: options of the augmentation.
    """
    turn, grow, right, down, chance = torch.rand(5, dtype=torch.float64).tolist()
    angle = math.radians(options.rotation * (2 * turn - 1))
    low, high = options.scale
    factor = (low + (high - low) * grow) * side / max(size)
    flip = FLIP if chance < options.hflip else np.eye(3)
    cosine, sine = math.cos(angle), math.sin(angle)
    space = np.array([[cosine, -sine, 0.0], [sine, cosine, 0.0], [0.0, 0.0, 1.0]]) @ flip
    image = np.eye(3)
    image[:2, :2] = factor * space[:2, :2]
    center = np.array([size[1] / 2, size[0] / 2])
    shift = options.translation * side * (2 * np.array([right, down]) - 1)
    image[:2, 2] = side / 2 + shift - image[:2, :2] @ center
    return AffineTransform(image, space)


def transformed_targets(
    ground_truth: HandGroundTruth, transform: AffineTransform, hand: HandArrays | None, size: tuple[int, int]
) -> dict[str, Tensor]:
    """Return the training targets of an image after a transform.

    Args:
        ground_truth: ground truth of the original image.
        transform: transform of the image.
        hand: hand model of the annotations; None for targets without its parameters.
        size: height and width of the transformed image, in pixels.

    Returns:
        "intrinsics" (3, 3), the camera; "joints" (21, 3) and "vertices" (V, 3) in meters from the root joint;
        "projected" (21, 2), the joints in the image, whose sides are at -1 and 1; "left" bool. With a hand model also
        "rotations" (16, 3, 3) and "shape" (S,) of the right hand, and "known" bool, true if the data contain them.
    """
    joints, vertices = ground_truth.joints @ transform.space.T, ground_truth.vertices @ transform.space.T
    camera = moved(ground_truth.intrinsics, transform.image, transform.space)
    was_left = ground_truth.side == "left"
    left = was_left != (np.linalg.det(transform.space) < 0)
    values = {
        "joints": joints - joints[ROOT],
        "vertices": vertices - joints[ROOT],
        "projected": to_unit_square(project(joints, camera), size),
    }
    flags = {"left": left}
    if hand is not None:
        shape = np.zeros(hand.shape_directions.shape[2])
        flags["known"] = (
            ground_truth.pose is not None and ground_truth.shape is not None and len(ground_truth.shape) == len(shape)
        )
        if flags["known"]:
            # A left hand is the mirrored right hand model, before and after the transform.
            before, after = (FLIP if mirrored else np.eye(3) for mirrored in (was_left, left))
            rotations = turns_of(np.asarray(ground_truth.pose), hand)
            rotations[0] = after @ transform.space @ before @ rotations[0]
            values |= {"rotations": rotations, "shape": np.asarray(ground_truth.shape)}
        else:
            values |= {"rotations": np.tile(np.eye(3), (TURNING, 1, 1)), "shape": shape}
    tensors = {name: torch.from_numpy(np.asarray(value, np.float32)) for name, value in values.items()}
    tensors |= {name: torch.tensor(bool(value)) for name, value in flags.items()}
    return tensors | {"intrinsics": torch.from_numpy(camera).float()}


def turns_of(pose: np.ndarray, hand: HandArrays) -> np.ndarray:
    """Convert a pose (48,), axis-angle relative to the hand's mean pose, to rotations of its joints (16, 3, 3)."""
    angles = pose + np.concatenate([np.zeros(3), hand.pose_mean])
    return np.asarray(Rotation.from_rotvec(angles.reshape(TURNING, 3)).as_matrix())


class TrainTransform:
    """Training transform: an image to augmented (C, side, side) uint8 pixels and the transform that was applied.

    Args:
        options: options of the augmentation.
        preprocessing: preprocessing of the model; pixels outside of the image are filled with its mean.
    """

    def __init__(self, options: HandMeshOptions, preprocessing: Preprocessing) -> None:
        self.options = options
        self.side = preprocessing.size[0]
        mean = [round(255 * value) for value in preprocessing.mean]
        self._fill = tuple(mean) if len(mean) == 3 else mean[0]
        self._gray = len(mean) == 1
        share = options.color
        self._colors = v2.ColorJitter(share, share, share, share / 10) if share and not self._gray else v2.Identity()

    def __call__(self, image: Image.Image) -> tuple[Tensor, AffineTransform]:
        transform = varied((image.height, image.width), self.side, self.options)
        pixels = F.pil_to_tensor(
            mapped(image.convert("L") if self._gray else image, transform.image, self.side, self._fill)
        )
        return self._colors(pixels), transform


def mapped(image: Image.Image, matrix: np.ndarray, side: int, fill: int | tuple[int, ...]) -> Image.Image:
    """Transform an image to a square, with antialiasing if it is reduced.

    Args:
        image: image to transform.
        matrix: (3, 3) affine transform from pixels to pixels.
        side: height and width of the result, in pixels.
        fill: color of the pixels outside of the image.
    """
    scale = math.sqrt(abs(np.linalg.det(matrix[:2, :2])))
    if scale < 1:
        width, height = (max(round(length * scale), 1) for length in image.size)
        matrix = matrix @ np.diag([image.width / width, image.height / height, 1.0])
        image = image.resize((width, height), Image.Resampling.BILINEAR)
    back = np.linalg.inv(matrix)
    coefficients = tuple(float(value) for value in back[:2].ravel())
    return image.transform(
        (side, side), Image.Transform.AFFINE, coefficients, Image.Resampling.BILINEAR, fillcolor=fill
    )
