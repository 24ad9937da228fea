"""Logits as words. NumPy alone: a process that runs an artifact loads no torch."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Label:
    """One guess for one image: class index, name, probability in [0, 1]."""

    index: int
    name: str
    probability: float


def softmax(logits: np.ndarray) -> np.ndarray:
    """(B, classes) logits -> probabilities, in float64."""
    exponentials = np.exp(logits.astype(np.float64) - logits.max(1, keepdims=True))
    return np.asarray(exponentials / exponentials.sum(1, keepdims=True))


def decode(probabilities: np.ndarray, classes: tuple[str, ...] | None, k: int = 5) -> list[list[Label]]:
    """The k likeliest classes of each row of (B, classes) probabilities, the likeliest first."""
    # A stable sort: of equal ones the first class comes first.
    order = np.argsort(-probabilities, axis=1, kind="stable")[:, :k]
    return [
        [Label(int(i), classes[i] if classes else str(i), float(row[i])) for i in indices]
        for row, indices in zip(probabilities, order, strict=True)
    ]
