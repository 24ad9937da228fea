"""Triangles into pixels, with NumPy alone: for synthetic data and for drawings. Needs no torch."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

# Pairs of a triangle and a pixel that are looked at together.
_AT_ONCE = 2_000_000


@dataclass(frozen=True)
class Raster:
    """What is seen at each pixel's center.

    Attributes:
        face: (H, W) int64, the nearest triangle, or -1 where there is none.
        weights: (H, W, 3) how much each of its corners counts there, in space: they sum to 1; 0 where there is none.
    """

    face: np.ndarray
    weights: np.ndarray

    @property
    def covered(self) -> np.ndarray:
        """(H, W) bool."""
        return np.asarray(self.face >= 0)

    def interpolated(self, values: np.ndarray, faces: np.ndarray) -> np.ndarray:
        """(V, C) values of the vertices at the covered pixels, (N, C), in the order of `covered`."""
        corners = values[faces[self.face[self.covered]]]
        return np.asarray(np.einsum("nkc,nk->nc", corners, self.weights[self.covered]))


def rasterize(points: np.ndarray, depths: np.ndarray, faces: np.ndarray, size: tuple[int, int]) -> Raster:
    """Find the nearest triangle at each pixel.

    Args:
        points: (V, 2) x and y in pixels; the center of the first pixel is at 0.5, 0.5.
        depths: (V,) distance from the camera along its axis, above 0; parallel projection has equal ones nearly, and a
            perspective one is interpolated as it must be.
        faces: (F, 3) vertices of the triangles, either way around.
        size: height and width in pixels.
    """
    height, width = size
    corners = points[faces]
    low = np.floor(corners.min(1) - 0.5).astype(np.int64).clip(0, (width, height))
    high = np.ceil(corners.max(1) + 0.5).astype(np.int64).clip(0, (width, height))
    sides = (high - low).max(1)
    front = (depths[faces] > 0).all(1) & (high > low).all(1)
    found: list[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]] = []
    for reach in np.unique(sides[front]).tolist():
        # Triangles of the same extent are looked at together, each on a square of pixels around it.
        group = np.flatnonzero(front & (sides == reach))
        found += [
            _candidates(corners[part], depths[faces[part]], low[part], high[part], reach, part, width)
            for part in np.array_split(group, len(group) * reach**2 // _AT_ONCE + 1)
        ]
    face = np.full(height * width, -1, np.int64)
    weights = np.zeros((height * width, 3))
    if found:
        pixels, distance, which, shares = (np.concatenate(column) for column in zip(*found, strict=True))
        order = np.argsort(-distance, kind="stable")  # of several at a pixel the last one written, the nearest, stays
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
    """Pixels inside of triangles: pixel, depth, triangle, and weights of its corners."""
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
    """(V, 3) unit normals, the mean of those of the faces around, weighted by their areas; 0 where there is no face."""
    corners = vertices[faces]
    across = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    normals = np.zeros_like(vertices)
    for corner in range(3):
        np.add.at(normals, faces[:, corner], across)
    return normals / np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-12)
