"""The images that ranges of activations are measured on."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image

from fastvit.errors import UserError
from fastvit.runs.evaluation_data import EvaluationData

# How many, by default. In docs/quantization.md 16 already give the accuracy of 1,024.
COUNT = 256


def chosen(total: int, count: int = COUNT, seed: int = 0) -> list[int]:
    """Indices of `count` of `total` images, drawn without repetition; all of them where there are no more.

    The same for the same numbers on every machine; a larger count begins with the images of a smaller one.
    """
    return np.random.default_rng(seed).permutation(total)[:count].tolist()


def calibration_pictures(data: EvaluationData | None = None, count: int = COUNT, seed: int = 0) -> list[Image.Image]:
    """Training images, never those that accuracy is measured on.

    Args:
        data: whose training part they are of; by default the embedded sample.
        count: how many, at least 1.
        seed: of the draw.

    Raises:
        UserError: there is no such data, or count is below 1.
    """
    if count < 1:
        raise UserError(f"int8 needs at least 1 calibration image, not {count}")
    pictures = (data or EvaluationData(None, "sample")).images("train")
    return [pictures.image(index) for index in chosen(len(pictures), count, seed)]


def required(calibration: np.ndarray | None) -> np.ndarray:
    """Calibration images (N, C, H, W), seen to be there.

    Raises:
        UserError: there are none.
    """
    if calibration is None or len(calibration) == 0:
        raise UserError("int8 needs images to calibrate on: give training images as calibration")
    return calibration


def batches(calibration: np.ndarray, batch: int | None, step: int = 16) -> list[np.ndarray]:
    """Images in batches such as a program takes.

    Args:
        calibration: (N, C, H, W).
        batch: images a call; the last ones are repeated to fill the last call. None for any number.
        step: images a call, then.
    """
    step = batch or step
    parts = [calibration[start : start + step] for start in range(0, len(calibration), step)]
    if batch and len(parts[-1]) < batch:
        parts[-1] = np.concatenate([parts[-1], np.repeat(parts[-1][-1:], batch - len(parts[-1]), 0)])
    return parts


def matching(names: Sequence[str], patterns: Sequence[str]) -> list[str]:
    """Names of layers that one of some patterns names, as `fnmatch` has it ("backbone.stem.*").

    Raises:
        UserError: a pattern names no layer.
    """
    from fnmatch import fnmatchcase

    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in names):
            raise UserError(f"no layer is called {pattern!r}; there are {names[0]}, {names[1]}, ... {names[-1]}")
    return [name for name in names if any(fnmatchcase(name, pattern) for pattern in patterns)]
