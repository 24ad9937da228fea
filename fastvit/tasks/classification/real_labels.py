"""ImageNet ReaL: reassessed labels of the validation set, several per image (Beyer et al., arXiv 2006.07159)."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from importlib.resources import files

import numpy as np

from fastvit.data.datasets import LabeledImages
from fastvit.data.imagenet import is_imagenet
from fastvit.errors import UserError

RealLabels = list[frozenset[int]]


def real_labels(pictures: LabeledImages) -> RealLabels:
    """Return the ReaL labels of each image, from timm; an image that shows no class has none.

    Args:
        pictures: ImageNet's validation set or a part of it, with the original file names.

    Raises:
        UserError: the images are not from ImageNet's validation set.
    """
    if not is_imagenet(pictures.classes):
        raise UserError(
            f"real_labels needs ImageNet's validation set; these images have {len(pictures.classes)} classes"
        )
    table = json.loads((files("timm.data") / "_info" / "imagenet_real_labels.json").read_text())
    return [frozenset(table[_number(pictures.name(i), len(table)) - 1]) for i in range(len(pictures))]


def _number(name: str, count: int) -> int:
    """Return the number in an image's file name, 1 to 50,000."""
    match = re.search(r"ILSVRC2012_val_(\d{8})", name)
    if not match or not 1 <= int(match[1]) <= count:
        raise UserError(
            f"real_labels needs ImageNet's validation set, with files such as ILSVRC2012_val_00000001.JPEG; got {name}"
        )
    return int(match[1])


def real_accuracy(guesses: np.ndarray, labels: Sequence[frozenset[int]]) -> dict[str, float]:
    """Return top-1 and top-5 accuracy on the ReaL labels.

    Args:
        guesses: (N, 5) predicted classes, the most likely first.
        labels: ReaL labels of each image; images without labels are not counted.

    Returns:
        "real_top1" and "real_top5", as fractions.

    Raises:
        UserError: no image has labels.
    """
    hits = np.array([[guess in right for guess in row] for row, right in zip(guesses, labels, strict=True) if right])
    if not len(hits):
        raise UserError("none of these images has a ReaL label: evaluate without --real-labels")
    return {"real_top1": float(hits[:, 0].mean()), "real_top5": float(hits.any(1).mean())}
