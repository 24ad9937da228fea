"""Conversion of a detector's raw outputs for a resized image to objects in the original image. Needs no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Objects:
    """Detected objects of an image, the highest score first.

    Attributes:
        boxes: (N, 4) float32, xyxy in pixels of the image.
        labels: (N,) int64, class indices from 0.
        scores: (N,) float32, in [0, 1].
        masks: (N, height, width) bool; None for a detector without masks.
    """

    boxes: np.ndarray
    labels: np.ndarray
    scores: np.ndarray
    masks: np.ndarray | None

    def above(self, score: float) -> Objects:
        """Return the objects with at least this score."""
        kept = self.scores >= score
        masks = None if self.masks is None else self.masks[kept]
        return Objects(self.boxes[kept], self.labels[kept], self.scores[kept], masks)


def to_objects(
    found: Mapping[str, np.ndarray], fitted: tuple[int, int], original: tuple[int, int], score: float = 0.0
) -> Objects:
    """Return the detections of an image in pixels of the original image.

    Args:
        found: raw outputs: "boxes" (N, 4) xyxy in pixels of the resized image, "labels" (N,), "scores" (N,), and, from
            a detector with masks, "masks" (N, S, S), probabilities on a grid over each box.
        fitted: height and width of the resized image, in pixels.
        original: height and width of the original image, in pixels.
        score: score threshold: objects with a lower score are dropped.
    """
    kept = found["scores"] >= score
    found = {name: values[kept] for name, values in found.items()}
    (height, width), (across, down) = original, (original[1] / fitted[1], original[0] / fitted[0])
    boxes = found["boxes"].astype(np.float64) * (across, down, across, down)
    # Masks cover complete boxes, which may extend into the padding of an image, so boxes are clipped afterwards.
    masks = paste_masks(found["masks"], boxes, original) if "masks" in found else None
    boxes = np.clip(boxes, 0, (width, height, width, height)).astype(np.float32)
    return Objects(boxes, found["labels"].astype(np.int64), found["scores"].astype(np.float32), masks)


def paste_masks(masks: np.ndarray, boxes: np.ndarray, size: tuple[int, int], threshold: float = 0.5) -> np.ndarray:
    """Return (N, height, width) bool masks from probabilities on grids over boxes.

    The grid of a box is interpolated bilinearly at the centers of the pixels, and is 0 outside; corners of boxes may be
    between pixels.

    Args:
        masks: (N, S, S) probabilities.
        boxes: (N, 4) xyxy in pixels.
        size: height and width of the image, in pixels.
        threshold: smallest probability of a pixel that belongs to the object.
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
    """Return (pixels, points): the weight of each grid point from `low` to `high` at the center of each pixel."""
    places = (pixels + 0.5 - low) / (high - low) * points - 0.5
    return np.clip(1 - np.abs(places[:, None] - np.arange(points)), 0, None)
