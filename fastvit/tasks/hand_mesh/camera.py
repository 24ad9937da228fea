"""Points in space and in the image, of pinhole and weak-perspective cameras. Needs no torch.

Axes are the camera's: x to the right of the image, y down, z away from the camera; meters and pixels.
"""

from __future__ import annotations

import numpy as np

FLIP = np.diag([-1.0, 1.0, 1.0])


def project(points: np.ndarray, intrinsics: np.ndarray) -> np.ndarray:
    """(..., N, 3) points in front of a pinhole camera (3, 3) -> (..., N, 2) x and y in pixels."""
    image = points @ intrinsics.T
    return np.asarray(image[..., :2] / image[..., 2:])


def moved(intrinsics: np.ndarray, image: np.ndarray, space: np.ndarray) -> np.ndarray:
    """The camera of an image that was mapped, for points that were turned or mirrored to go with it.

    A point at p is seen at K p; after the image is mapped by A and space by M, M p must be seen at A K p, so that the
    camera is A K M^-1. Of a turn about the image's axis and a camera with square pixels it is a pinhole camera again.

    Args:
        intrinsics: K, (3, 3).
        image: A, (3, 3), pixels -> pixels, affine.
        space: M, (3, 3), a rotation about the z axis, or a mirroring.
    """
    return np.asarray(image @ intrinsics @ np.linalg.inv(space))


def weak_projection(points: np.ndarray, camera: np.ndarray) -> np.ndarray:
    """(..., N, 3) points from the root joint -> (..., N, 2) in the image, whose sides are at -1 and 1.

    Args:
        points: meters.
        camera: (..., 3), scale and place of the root joint.
    """
    return np.asarray(camera[..., None, :1] * points[..., :2] + camera[..., None, 1:])


def to_pixels(places: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """(..., 2) places in -1 to 1 -> pixels of an image of a height and width."""
    height, width = size
    return np.asarray((places + 1) / 2 * np.array([width, height], np.float64))


def to_places(pixels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The inverse of `to_pixels`."""
    height, width = size
    return np.asarray(pixels / np.array([width, height], np.float64) * 2 - 1)


def root_in_space(camera: np.ndarray, size: tuple[int, int], intrinsics: np.ndarray) -> np.ndarray:
    """(3,) where the root joint is, so that a pinhole camera sees the hand about where a weak-perspective one does.

    Its depth is where a meter is as many pixels as the scale says.

    Args:
        camera: (3,), scale and place of the root joint, of an image of a height and width.
        size: that height and width in pixels.
        intrinsics: (3, 3), of the same image.
    """
    focal = (intrinsics[0, 0] + intrinsics[1, 1]) / 2
    pixels_a_metre = camera[0] * (size[0] + size[1]) / 4
    ray = np.linalg.solve(intrinsics, np.append(to_pixels(camera[1:], size), 1.0))
    return np.asarray(ray * (focal / pixels_a_metre))
