"""Logits as words. NumPy alone: a process that runs an artifact loads no torch."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from fastvit.data.classes import class_name
from fastvit.predict.prediction import Prediction


@dataclass(frozen=True)
class Label:
    """One guess for one image: class index, name, probability in [0, 1]."""

    index: int
    name: str
    probability: float


@dataclass(frozen=True)
class ClassPrediction(Prediction):
    """For one image: its name and the likeliest classes, the likeliest first."""

    image: str
    labels: list[Label]

    def record(self) -> dict[str, Any]:
        """For JSON: "image", and "predictions" (index, name, probability)."""
        return {"image": self.image, "predictions": [asdict(label) for label in self.labels]}

    def summary(self) -> str:
        """The classes with their probabilities."""
        return ", ".join(self.cells())

    def cells(self) -> list[str]:
        """A class each."""
        return [f"{label.name} {label.probability:.1%}" for label in self.labels]

    def columns(self) -> dict[str, Any]:
        """A list of the labels' values each."""
        return {name: [getattr(label, name) for label in self.labels] for name in ("index", "name", "probability")}


def softmax(logits: np.ndarray) -> np.ndarray:
    """(B, classes) logits -> probabilities, in float64."""
    exponentials = np.exp(logits.astype(np.float64) - logits.max(1, keepdims=True))
    return np.asarray(exponentials / exponentials.sum(1, keepdims=True))


def decode(probabilities: np.ndarray, classes: tuple[str, ...] | None, k: int = 5) -> list[list[Label]]:
    """The k likeliest classes of each row of (B, classes) probabilities, the likeliest first."""
    # A stable sort: of equal ones the first class comes first.
    order = np.argsort(-probabilities, axis=1, kind="stable")[:, :k]
    return [
        [Label(int(i), class_name(i, classes), float(row[i])) for i in indices]
        for row, indices in zip(probabilities, order, strict=True)
    ]
