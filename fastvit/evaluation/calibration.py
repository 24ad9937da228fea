"""Does a classifier that says 80% name the right class in 80% of the cases?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

BINS = 15


@dataclass(frozen=True)
class Bin:
    """The images whose predicted class got a probability in (low, high].

    Attributes:
        low: of the probability.
        high: of the probability.
        images: how many there are.
        confidence: mean probability.
        accuracy: share of correct predictions.
    """

    low: float
    high: float
    images: int
    confidence: float
    accuracy: float


def reliability(probability: np.ndarray, correct: np.ndarray, bins: int = BINS) -> list[Bin]:
    """Images by the probability of their predicted class, in bins of equal width; empty ones are left out.

    Args:
        probability: (N,) of the predicted class, in [0, 1].
        correct: (N,) bool, whether it was the true one.
        bins: how many.
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
    """Mean distance of accuracy from confidence, weighted by the images of each bin (Guo et al., arXiv 1706.04599).

    torchmetrics gives the same but for probabilities on the edge of a bin, which it counts to the one above, and so 1
    to a bin of its own.
    """
    return sum(b.images * abs(b.accuracy - b.confidence) for b in bins) / sum(b.images for b in bins)
