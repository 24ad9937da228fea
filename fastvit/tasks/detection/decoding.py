"""From what a detector gives for a resized image to boxes and masks in the image itself. Needs no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Objects:
    """What was found in an image, the surest first.

    Attributes:
        boxes: (N, 4) float32, xyxy in pixels of the image.
        labels: (N,) int64, from 0.
        scores: (N,) float32 in [0, 1].
        masks: (N, height, width) bool; None of a detector without masks.
    """

    boxes: np.ndarray
    labels: np.ndarray
    scores: np.ndarray
    masks: np.ndarray | None

    def above(self, score: float) -> Objects:
        """Those with at least this score."""
        kept = self.scores >= score
        masks = None if self.masks is None else self.masks[kept]
        return Objects(self.boxes[kept], self.labels[kept], self.scores[kept], masks)


def to_objects(
    found: Mapping[str, np.ndarray], fitted: tuple[int, int], original: tuple[int, int], score: float = 0.0
) -> Objects:
    """The detections of an image in its own pixels.

    Args:
        found: "boxes" (N, 4) xyxy in pixels of the resized image, "labels" (N,), "scores" (N,), and of a detector with
            masks "masks" (N, S, S), probabilities on a grid over each box.
        fitted: height and width of the resized image.
        original: height and width of the image.
        score: what has less is left out.
    """
    kept = found["scores"] >= score
    found = {name: values[kept] for name, values in found.items()}
    (height, width), (across, down) = original, (original[1] / fitted[1], original[0] / fitted[0])
    boxes = found["boxes"].astype(np.float64) * (across, down, across, down)
    # Masks lie over whole boxes, of which what is filled up around an image may have a part.
    masks = paste_masks(found["masks"], boxes, original) if "masks" in found else None
    boxes = np.clip(boxes, 0, (width, height, width, height)).astype(np.float32)
    return Objects(boxes, found["labels"].astype(np.int64), found["scores"].astype(np.float32), masks)


def paste_masks(masks: np.ndarray, boxes: np.ndarray, size: tuple[int, int], threshold: float = 0.5) -> np.ndarray:
    """(N, S, S) probabilities on grids over boxes -> (N, height, width) bool.

    Each pixel's center is looked up in its box's grid, between whose points it is linear and outside of which it is 0;
    boxes need not lie on whole pixels.

    Args:
        masks: probabilities.
        boxes: (N, 4) xyxy in pixels.
        size: height and width of the image.
        threshold: from which probability on a pixel belongs to the object.
    """
    height, width = size
    pasted = np.zeros((len(masks), height, width), bool)
    for canvas, mask, (left, top, right, bottom) in zip(pasted, masks, boxes.astype(np.float64), strict=True):
        x0, y0 = max(int(left), 0), max(int(top), 0)
        x1, y1 = max(min(int(np.ceil(right)), width), x0), max(min(int(np.ceil(bottom)), height), y0)
        if right > left and bottom > top:
            across = _weights(np.arange(x0, x1), left, right, mask.shape[1])
            down = _weights(np.arange(y0, y1), top, bottom, mask.shape[0])
            canvas[y0:y1, x0:x1] = down @ mask @ across.T >= threshold
    return pasted


def _weights(pixels: np.ndarray, low: float, high: float, points: int) -> np.ndarray:
    """(pixels, points): how much each point of a grid from `low` to `high` counts at the center of each pixel."""
    places = (pixels + 0.5 - low) / (high - low) * points - 0.5
    return np.clip(1 - np.abs(places[:, None] - np.arange(points)), 0, None)
