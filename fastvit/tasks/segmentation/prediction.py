"""What a segmenter says of an image. Needs no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastvit.data.classes import class_name
from fastvit.predict.prediction import Prediction
from fastvit.tasks.detection.run_lengths import encode_masks


@dataclass(frozen=True)
class SegmentationPrediction(Prediction):
    """For one image: its name, and the class of each of its pixels.

    Attributes:
        image: its name.
        mask: (height, width) uint8, from 0.
        classes: names, or None where the model has none.
    """

    image: str
    mask: np.ndarray
    classes: tuple[str, ...] | None

    def name(self, label: int) -> str:
        """Of a class."""
        return class_name(label, self.classes)

    def shares(self) -> list[tuple[int, float]]:
        """The classes that occur and their shares of the pixels, the largest first."""
        counts = np.bincount(self.mask.ravel())
        order = np.argsort(-counts, kind="stable")
        return [(int(label), float(counts[label] / self.mask.size)) for label in order if counts[label]]

    def record(self) -> dict[str, Any]:
        """For JSON: "image", and "predictions": "index", "name", "share" and "segmentation" of each class that occurs.

        The last is the class's mask as COCO's compressed run lengths.
        """
        labels = self.shares()
        runs = encode_masks(np.stack([self.mask == label for label, _ in labels]))
        predictions = [
            {"index": label, "name": self.name(label), "share": round(share, 5), "segmentation": run}
            for (label, share), run in zip(labels, runs, strict=True)
        ]
        return {"image": self.image, "predictions": predictions}

    def summary(self) -> str:
        """On a line: which classes, and how much of the image each takes."""
        return ", ".join(f"{self.name(label)} {share:.0%}" for label, share in self.shares())


def decoded(outputs: Mapping[str, np.ndarray], fitted: tuple[int, int], original: tuple[int, int]) -> np.ndarray:
    """Return the class of each pixel of an image.

    Args:
        outputs: "logits" or "probabilities" (1, classes, H, W), with the resized image in the upper left corner.
        fitted: height and width of the resized image.
        original: height and width of the image.

    Returns:
        (height, width) uint8.
    """
    maps = outputs["probabilities"] if "probabilities" in outputs else outputs["logits"]
    return bilinear(maps[0][:, : fitted[0], : fitted[1]], original).argmax(0).astype(np.uint8)


def bilinear(maps: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """(C, h, w) -> (C, *size), as torch's bilinear interpolation without aligned corners and antialiasing does it."""
    for axis, target in zip((1, 2), size, strict=True):
        length = maps.shape[axis]
        if length == target:
            continue
        places = np.clip((np.arange(target) + 0.5) * (length / target) - 0.5, 0, length - 1)
        low = places.astype(np.int64)
        shares = (places - low).astype(maps.dtype)
        shares = shares.reshape((1, -1, 1) if axis == 1 else (1, 1, -1))
        high = np.minimum(low + 1, length - 1)
        maps = maps.take(low, axis) * (1 - shares) + maps.take(high, axis) * shares
    return maps
