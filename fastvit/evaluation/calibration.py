"""Calibration of a classifier: expected calibration error (ECE) and reliability diagram."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

BINS = 15


@dataclass(frozen=True)
class Bin:
    """Images whose predicted class has a probability in (low, high].

    Attributes:
        low: lower bound of the probability, exclusive.
        high: upper bound of the probability, inclusive.
        images: number of images.
        confidence: mean probability of the predicted class.
        accuracy: share of correct predictions.
    """

    low: float
    high: float
    images: int
    confidence: float
    accuracy: float


def reliability(probability: np.ndarray, correct: np.ndarray, bins: int = BINS) -> list[Bin]:
    """Group images by the probability of their predicted class, in bins of equal width; empty bins are left out.

    Args:
        probability: (N,) probability of the predicted class, in [0, 1].
        correct: (N,) bool, whether the prediction is correct.
        bins: number of bins.
    """
    place = np.clip(np.ceil(probability * bins).astype(int) - 1, 0, bins - 1)
    members = [(index, place == index) for index in np.unique(place)]
    return [
        Bin(
            index / bins, (index + 1) / bins, int(own.sum()), float(probability[own].mean()), float(correct[own].mean())
        )
        for index, own in members
    ]


def expected_calibration_error(bins: Sequence[Bin]) -> float:
    """Return the expected calibration error (ECE; Guo et al., arXiv 1706.04599), a fraction.

    It is the mean absolute difference of accuracy and confidence, weighted by the number of images of each bin.
    torchmetrics computes the same, except that it assigns a probability on the edge of two bins to the upper one, and
    so 1 to a bin of its own.
    """
    return sum(b.images * abs(b.accuracy - b.confidence) for b in bins) / sum(b.images for b in bins)
