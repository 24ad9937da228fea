"""What a prediction is, whatever its task. Needs no torch."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fastvit.errors import UserError


@dataclass(frozen=True)
class Limits:
    """What is left out of predictions.

    Attributes:
        k: how many classes to keep for an image.
        score: objects with a lower score are dropped.

    Raises:
        UserError: k is below 1, or score not in 0 to 1.
    """

    k: int = 5
    score: float = 0.0

    def __post_init__(self) -> None:
        if self.k < 1:
            raise UserError(f"k must be at least 1, got {self.k}")
        if not 0 <= self.score <= 1:
            raise UserError(f"score must be in 0 to 1, got {self.score}")


@dataclass(frozen=True)
class PreprocessedImage:
    """An image as the network sees it.

    Attributes:
        name: of the image.
        pixels: (C, H, W) uint8.
        size: height and width of the image itself.
        fitted: height and width of the resized image, which lies in the upper left corner of the pixels.
    """

    name: str
    pixels: np.ndarray
    size: tuple[int, int]
    fitted: tuple[int, int]


@dataclass(frozen=True)
class Failure:
    """An image that could not be read, and why."""

    image: str
    reason: str


class Prediction(ABC):
    """The prediction for one image.

    Attributes:
        image: its name.
    """

    image: str

    @abstractmethod
    def record(self) -> dict[str, Any]:
        """Return "image" and "predictions" for JSON, the likeliest first."""

    @abstractmethod
    def summary(self) -> str:
        """Return the prediction on one line."""

    def cells(self) -> list[str]:
        """Return a text for each of `TaskSpec.table_header`."""
        return [self.summary()]

    def columns(self) -> dict[str, Any]:
        """Return the lists "index", "name" and "probability" for Parquet.

        Raises:
            UserError: the prediction does not fit into columns.
        """
        raise UserError("these predictions do not fit into Parquet's columns: give a .jsonl file")

    def write_mesh(self, path: Path) -> None:
        """Write the mesh of a task that has `TaskSpec.mesh_suffixes`.

        Raises:
            UserError: there is no mesh, or the file cannot be written.
        """
        raise UserError(f"a {type(self).__name__} has no mesh")
