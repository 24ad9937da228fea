"""Calibration images, on which the ranges of activations are measured."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image

from fastvit.errors import UserError
from fastvit.runs.evaluation_data import EvaluationData

# Default number of images. In docs/quantization.md 16 images already give the accuracy of 1,024.
COUNT = 256


def chosen(total: int, count: int = COUNT, seed: int = 0) -> list[int]:
    """Return the indices of `count` of `total` images, drawn without repetition; all indices if `total` is smaller.

    The result is the same on every machine; a larger count begins with the images of a smaller one.

    Args:
        total: number of images.
        count: number of indices wanted.
        seed: random seed.
    """
    return np.random.default_rng(seed).permutation(total)[:count].tolist()


def calibration_pictures(data: EvaluationData | None = None, count: int = COUNT, seed: int = 0) -> list[Image.Image]:
    """Return training images for calibration, never validation images.

    Args:
        data: data whose training images are used; by default the embedded sample.
        count: number of images, at least 1.
        seed: random seed.

    Raises:
        UserError: the data do not exist, or count is below 1.
    """
    if count < 1:
        raise UserError(f"int8 needs at least 1 calibration image, got {count}")
    pictures = (data or EvaluationData(None, "sample")).images("train")
    return [pictures.image(index) for index in chosen(len(pictures), count, seed)]


def required(calibration: np.ndarray | None) -> np.ndarray:
    """Return the calibration images, (N, C, H, W).

    Raises:
        UserError: none are given.
    """
    if calibration is None or len(calibration) == 0:
        raise UserError("int8 needs calibration images: give training images as calibration")
    return calibration


def batches(calibration: np.ndarray, batch: int | None, step: int = 16) -> list[np.ndarray]:
    """Split images into batches that a program takes.

    Args:
        calibration: (N, C, H, W) images.
        batch: batch size of the program; the last images are repeated to fill the last batch. None for a dynamic one.
        step: batch size if it is dynamic.
    """
    step = batch or step
    parts = [calibration[start : start + step] for start in range(0, len(calibration), step)]
    if batch and len(parts[-1]) < batch:
        parts[-1] = np.concatenate([parts[-1], np.repeat(parts[-1][-1:], batch - len(parts[-1]), 0)])
    return parts


def matching(names: Sequence[str], patterns: Sequence[str]) -> list[str]:
    """Return the names of layers that match one of some patterns, such as "backbone.stem.*" (see `fnmatch`).

    Raises:
        UserError: a pattern does not match any layer.
    """
    from fnmatch import fnmatchcase

    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in names):
            raise UserError(
                f"{pattern!r} does not match any layer; the layers are {names[0]}, {names[1]}, ... {names[-1]}"
            )
    return [name for name in names if any(fnmatchcase(name, pattern) for pattern in patterns)]
