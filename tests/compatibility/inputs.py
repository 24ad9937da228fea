"""What the old files are written from and read with: the same on any machine, from formulas alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tests.reference import formula

CLASSES = ("ape", "bee", "cat")
VARIANT = "compatibility_t1"  # of the run; not one of the package's
EPOCHS = 3  # of the run, which was interrupted before the last one


def images(count: int = 2) -> np.ndarray:
    """(count, 3, 64, 64) float64, normalized images."""
    return formula.images(7, count, 64, 64)


def picture(index: int = 0) -> Image.Image:
    """An RGB image of 64 pixels a side: blocks whose brightness depends on the class, `index % 3`."""
    noise = formula.uniform(f"picture {index}", (8, 8, 3), 0)
    blocks = np.floor(noise * 120 + 60 * (index % 3)).astype(np.uint8)
    return Image.fromarray(blocks.repeat(8, 0).repeat(8, 1))


def write_photos(folder: Path, each: int = 12) -> None:
    """Write a folder a class of PNG images, without a validation split."""
    for index in range(each * len(CLASSES)):
        path = folder / CLASSES[index % len(CLASSES)] / f"{index:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        picture(index).save(path)


def outputs(found: Any) -> dict[str, np.ndarray]:
    """What a model returned, as named arrays of at most a few hundred numbers each, float64."""
    if isinstance(found, (list, tuple)):
        return {f"{i} {name}": value for i, one in enumerate(found) for name, value in outputs(one).items()}
    if isinstance(found, dict):
        return {f"{key} {name}".strip(): value for key, one in found.items() for name, value in outputs(one).items()}
    array = np.asarray(found.detach().double())
    flat = array.ravel()
    few = flat[:: max(1, flat.size // 200)]
    return {"": np.concatenate([array.shape, [flat.sum()], few])}
