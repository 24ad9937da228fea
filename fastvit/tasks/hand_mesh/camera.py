"""Projections of pinhole and weak-perspective cameras. Needs no torch.

Axes are the camera's: x to the right of the image, y down, z away from the camera; in meters and pixels.
"""

from __future__ import annotations

import numpy as np

FLIP = np.diag([-1.0, 1.0, 1.0])


def project(points: np.ndarray, intrinsics: np.ndarray) -> np.ndarray:
    """Project points (..., N, 3) in front of a pinhole camera (3, 3) to pixels (..., N, 2), x and y."""
    image = points @ intrinsics.T
    return np.asarray(image[..., :2] / image[..., 2:])


def moved(intrinsics: np.ndarray, image: np.ndarray, space: np.ndarray) -> np.ndarray:
    """Return the camera of a transformed image, for points that were rotated or mirrored with it.

    A point p is projected to K p. After the image is transformed by A and space by M, the point M p must be projected
    to A K p, so the camera is A K M^-1. It is a pinhole camera if M rotates about the camera's axis and pixels are
    square.

    Args:
        intrinsics: (3, 3) camera matrix K.
        image: (3, 3) affine transform A, from pixels to pixels.
        space: (3, 3) rotation about the z axis or mirroring M.
    """
    return np.asarray(image @ intrinsics @ np.linalg.inv(space))


def weak_projection(points: np.ndarray, camera: np.ndarray) -> np.ndarray:
    """Project points to the image, whose sides are at -1 and 1: (..., N, 2).

    Args:
        points: (..., N, 3), in meters from the root joint.
        camera: (..., 3) weak-perspective camera: scale, and x and y of the root joint.
    """
    return np.asarray(camera[..., None, :1] * points[..., :2] + camera[..., None, 1:])


def to_pixels(places: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Convert positions (..., 2) in -1 to 1 to pixels of an image of a height and width."""
    height, width = size
    return np.asarray((places + 1) / 2 * np.array([width, height], np.float64))


def to_unit_square(pixels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Convert pixels (..., 2) of an image of a height and width to positions in -1 to 1, inverting `to_pixels`."""
    height, width = size
    return np.asarray(pixels / np.array([width, height], np.float64) * 2 - 1)


def root_in_space(camera: np.ndarray, size: tuple[int, int], intrinsics: np.ndarray) -> np.ndarray:
    """Return the root joint (3,) for which pinhole and weak-perspective camera project the hand about equally.

    At its depth, one meter is as many pixels as with the scale of the weak-perspective camera.

    Args:
        camera: (3,) weak-perspective camera: scale, and x and y of the root joint.
        size: height and width of the image, in pixels.
        intrinsics: (3, 3) pinhole camera of the same image.
    """
    focal = (intrinsics[0, 0] + intrinsics[1, 1]) / 2
    pixels_per_meter = camera[0] * (size[0] + size[1]) / 4
    ray = np.linalg.solve(intrinsics, np.append(to_pixels(camera[1:], size), 1.0))
    return np.asarray(ray * (focal / pixels_per_meter))
