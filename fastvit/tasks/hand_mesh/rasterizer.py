"""Rasterizer of triangles, for synthetic data and drawings. Needs NumPy only."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

# Number of pairs of triangle and pixel that are tested in one step.
_AT_ONCE = 2_000_000


@dataclass(frozen=True)
class Raster:
    """Visible triangle at each pixel's center.

    Attributes:
        face: (H, W) int64 index of the nearest triangle; -1 for no triangle.
        weights: (H, W, 3) barycentric weights of its corners in space, which sum to 1; 0 for no triangle.
    """

    face: np.ndarray
    weights: np.ndarray

    @property
    def covered(self) -> np.ndarray:
        """Pixels that a triangle covers, (H, W) bool."""
        return np.asarray(self.face >= 0)

    def interpolated(self, values: np.ndarray, faces: np.ndarray) -> np.ndarray:
        """Interpolate values (V, C) of the vertices at the covered pixels: (N, C), in the order of `covered`."""
        corners = values[faces[self.face[self.covered]]]
        return np.asarray(np.einsum("nkc,nk->nc", corners, self.weights[self.covered]))


def rasterize(points: np.ndarray, depths: np.ndarray, faces: np.ndarray, size: tuple[int, int]) -> Raster:
    """Find the nearest triangle at each pixel.

    Args:
        points: (V, 2) x and y in pixels; the center of the first pixel is at 0.5, 0.5.
        depths: (V,) distances from the camera along its axis, above 0; weights are perspective-correct, and depths that
            are nearly equal give a parallel projection.
        faces: (F, 3) vertices of the triangles, in any orientation.
        size: height and width of the image, in pixels.
    """
    height, width = size
    corners = points[faces]
    low = np.floor(corners.min(1) - 0.5).astype(np.int64).clip(0, (width, height))
    high = np.ceil(corners.max(1) + 0.5).astype(np.int64).clip(0, (width, height))
    sides = (high - low).max(1)
    front = (depths[faces] > 0).all(1) & (high > low).all(1)
    found: list[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]] = []
    for reach in np.unique(sides[front]).tolist():
        # Triangles of the same extent are tested together, each on a square of pixels around it.
        group = np.flatnonzero(front & (sides == reach))
        found += [
            _candidates(corners[part], depths[faces[part]], low[part], high[part], reach, part, width)
            for part in np.array_split(group, len(group) * reach**2 // _AT_ONCE + 1)
        ]
    face = np.full(height * width, -1, np.int64)
    weights = np.zeros((height * width, 3))
    if found:
        pixels, distance, which, shares = (np.concatenate(column) for column in zip(*found, strict=True))
        order = np.argsort(-distance, kind="stable")  # the nearest triangle of a pixel is written last
        face[pixels[order]] = which[order]
        weights[pixels[order]] = shares[order]
    return Raster(face.reshape(size), weights.reshape(height, width, 3))


def _candidates(
    corners: np.ndarray,
    depths: np.ndarray,
    low: np.ndarray,
    high: np.ndarray,
    reach: int,
    which: np.ndarray,
    width: int,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return the pixels inside of triangles: pixel, depth, triangle, and weights of its corners."""
    steps = np.arange(reach)
    down, across = (grid.ravel() for grid in np.meshgrid(steps, steps, indexing="ij"))
    x, y = low[:, :1] + across, low[:, 1:] + down
    (ax, ay), (bx, by), (cx, cy) = (corners[:, corner].T[..., None] for corner in range(3))
    area = (bx - ax) * (cy - ay) - (by - ay) * (cx - ax)
    px, py = x + 0.5, y + 0.5
    with np.errstate(divide="ignore", invalid="ignore"):
        second = ((px - ax) * (cy - ay) - (py - ay) * (cx - ax)) / area
        third = ((bx - ax) * (py - ay) - (by - ay) * (px - ax)) / area
        first = 1 - second - third
        inside = (first >= 0) & (second >= 0) & (third >= 0) & (x < high[:, :1]) & (y < high[:, 1:])
    triangle, place = np.nonzero(inside)
    flat = np.stack([part[triangle, place] for part in (first, second, third)], 1)
    inverse = flat / depths[triangle]
    total = inverse.sum(1)
    pixels = y[triangle, place] * width + x[triangle, place]
    return pixels, 1 / total, which[triangle], inverse / total[:, None]


def vertex_normals(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Compute unit normals (V, 3): area-weighted means of the adjacent faces' normals; 0 without a face."""
    corners = vertices[faces]
    across = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    normals = np.zeros_like(vertices)
    for corner in range(3):
        np.add.at(normals, faces[:, corner], across)
    return normals / np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-12)
