"""Predictions, as all tasks have them. Does not import torch."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fastvit.errors import UserError


@dataclass(frozen=True)
class Limits:
    """Limits of a prediction.

    Attributes:
        k: number of classes per image, at least 1.
        score: score threshold of objects, 0 to 1.

    Raises:
        UserError: k or score is out of range.
    """

    k: int = 5
    score: float = 0.0

    def __post_init__(self) -> None:
        if self.k < 1:
            raise UserError(f"k must be at least 1, got {self.k}")
        if not 0 <= self.score <= 1:
            raise UserError(f"score must be from 0 to 1, got {self.score}")


@dataclass(frozen=True)
class PreprocessedImage:
    """A decoded and resized image.

    Attributes:
        name: path of the image, or "image 3" for one in memory.
        pixels: (C, H, W) uint8, resized and padded.
        size: height and width of the original image.
        fitted: height and width of the resized image, in the upper left corner of the pixels.
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
        image: path of the image, or "image 3" for one in memory.
    """

    image: str

    @abstractmethod
    def record(self) -> dict[str, Any]:
        """Return "image" and "predictions" for JSON, best first."""

    @abstractmethod
    def summary(self) -> str:
        """Return the prediction as one line of text."""

    def cells(self) -> list[str]:
        """Return the cells of a table row, one for each column of `TaskSpec.table_header`."""
        return [self.summary()]

    def columns(self) -> dict[str, Any]:
        """Return the lists "index", "name" and "probability" for Parquet.

        Raises:
            UserError: the task does not support Parquet.
        """
        raise UserError("Parquet files are for classifiers: give a .jsonl file")

    def write_mesh(self, path: Path) -> None:
        """Write the mesh to a file with one of `TaskSpec.mesh_suffixes`.

        Raises:
            UserError: the task does not predict meshes, or the file cannot be written.
        """
        raise UserError(f"a {type(self).__name__} has no mesh")
