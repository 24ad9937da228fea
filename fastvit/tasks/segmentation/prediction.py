"""Predictions of a segmenter. Needs no torch."""

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
    """Predicted class of each pixel of one image.

    Attributes:
        image: name of the image.
        mask: (height, width) uint8, class indices from 0.
        classes: class names; None if the model has none.
    """

    image: str
    mask: np.ndarray
    classes: tuple[str, ...] | None

    def name(self, label: int) -> str:
        """Return the name of a class."""
        return class_name(label, self.classes)

    def shares(self) -> list[tuple[int, float]]:
        """Return the classes that occur and their shares of the pixels, the largest first."""
        counts = np.bincount(self.mask.ravel())
        order = np.argsort(-counts, kind="stable")
        return [(int(label), float(counts[label] / self.mask.size)) for label in order if counts[label]]

    def record(self) -> dict[str, Any]:
        """Return "image" and "predictions" for JSON.

        A prediction has "index", "name", "share" and "segmentation" of a class that occurs; the last is the mask of the
        class in COCO's compressed RLE.
        """
        labels = self.shares()
        runs = encode_masks(np.stack([self.mask == label for label, _ in labels]))
        predictions = [
            {"index": label, "name": self.name(label), "share": round(share, 5), "segmentation": run}
            for (label, share), run in zip(labels, runs, strict=True)
        ]
        return {"image": self.image, "predictions": predictions}

    def summary(self) -> str:
        """Return the classes and their shares of the image on one line, without those below half a percent."""
        return ", ".join(f"{self.name(label)} {share:.0%}" for label, share in self.shares() if share > 0.005)


def decoded(outputs: Mapping[str, np.ndarray], fitted: tuple[int, int], original: tuple[int, int]) -> np.ndarray:
    """Return the class of each pixel of an image.

    Args:
        outputs: raw outputs, "logits" or "probabilities" (1, classes, H, W), of the image in the upper left corner.
        fitted: height and width of the resized image, in pixels.
        original: height and width of the original image, in pixels.

    Returns:
        The mask, (height, width) uint8.
    """
    maps = outputs["probabilities"] if "probabilities" in outputs else outputs["logits"]
    return bilinear(maps[0][:, : fitted[0], : fitted[1]], original).argmax(0).astype(np.uint8)


def bilinear(maps: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Return (C, h, w) maps resized to (C, *size), like torch's bilinear interpolation with align_corners=False."""
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
