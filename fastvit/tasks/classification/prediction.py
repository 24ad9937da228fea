"""Predictions of a classifier, decoded from its logits. Needs no torch."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from fastvit.data.classes import class_name
from fastvit.predict.prediction import Prediction


@dataclass(frozen=True)
class Label:
    """A predicted class: index, name and probability in [0, 1]."""

    index: int
    name: str
    probability: float


@dataclass(frozen=True)
class ClassPrediction(Prediction):
    """Name and most likely classes of one image, the most likely first."""

    image: str
    labels: list[Label]

    def record(self) -> dict[str, Any]:
        """Return "image" and "predictions", a list of "index", "name" and "probability", for JSON."""
        return {"image": self.image, "predictions": [asdict(label) for label in self.labels]}

    def summary(self) -> str:
        """Return the classes with their probabilities on one line."""
        return ", ".join(self.cells())

    def cells(self) -> list[str]:
        """Return a cell for each class, with its probability."""
        return [f"{label.name} {label.probability:.1%}" for label in self.labels]

    def columns(self) -> dict[str, Any]:
        """Return the columns "index", "name" and "probability", each a list with an item per class."""
        return {name: [getattr(label, name) for label in self.labels] for name in ("index", "name", "probability")}


def softmax(logits: np.ndarray) -> np.ndarray:
    """Return the softmax of (B, classes) logits, in float64."""
    exponentials = np.exp(logits.astype(np.float64) - logits.max(1, keepdims=True))
    return np.asarray(exponentials / exponentials.sum(1, keepdims=True))


def decode(probabilities: np.ndarray, classes: tuple[str, ...] | None, k: int = 5) -> list[list[Label]]:
    """Return the k most likely classes of each image, the most likely first.

    Args:
        probabilities: (B, classes) probabilities.
        classes: names of the classes; None to use their indices.
        k: number of classes per image.
    """
    # A stable sort keeps classes with equal probabilities in their order.
    order = np.argsort(-probabilities, axis=1, kind="stable")[:, :k]
    return [
        [Label(int(i), class_name(i, classes), float(row[i])) for i in indices]
        for row, indices in zip(probabilities, order, strict=True)
    ]
