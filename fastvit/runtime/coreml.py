"""Core ML packages, on a Mac."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import coremltools
import numpy as np
from PIL import Image

from fastvit.errors import UserError, first_line
from fastvit.runtime.artifact import Run
from fastvit.weights.description import METADATA_KEY


def read(path: Path, threads: int | None = None) -> tuple[str | None, Run]:
    """Load a package: return its metadata and a function that runs it.

    Core ML chooses the processor, so `threads` has no effect.

    Raises:
        UserError: the package is corrupt.
    """
    try:
        model = coremltools.models.MLModel(str(path))
        spec = model.get_spec()
    except Exception as error:  # errors of Core ML, protobuf, JSON and files
        raise UserError(f"Core ML cannot read {path}: {first_line(error)}") from error
    metadata = model.user_defined_metadata.get(METADATA_KEY)
    source = spec.description.input[0]
    outputs = [output.name for output in spec.description.output]

    # Apple's documentation: an MLModel may be used by one thread at a time.
    predicting = threading.Lock()

    def predict(images: np.ndarray) -> list[np.ndarray]:
        given = _image(images) if source.type.HasField("imageType") else images
        try:
            with predicting:
                output = model.predict({source.name: given})
        except RuntimeError as error:
            raise UserError(f"Core ML cannot run {path}: {first_line(error)}") from error
        if spec.description.predictedFeatureName:
            return [
                _in_order(output[spec.description.predictedProbabilitiesName], json.loads(metadata or "")["classes"])
            ]
        return [np.asarray(output[name]) for name in outputs]

    step = _largest_batch(source)

    def run(images: np.ndarray) -> list[np.ndarray]:
        parts = [predict(images[start : start + step]) for start in range(0, len(images), step)]
        return [np.concatenate(column) for column in zip(*parts, strict=True)]

    return metadata, run


def _image(pixels: np.ndarray) -> Image.Image:
    """Return (1, C, H, W) uint8 pixels as an image."""
    array = pixels[0].transpose(1, 2, 0)
    return Image.fromarray(array[..., 0] if array.shape[2] == 1 else array)


def _in_order(probabilities: Mapping[str, float], classes: Sequence[str]) -> np.ndarray:
    """Return (1, classes) probabilities, from a dictionary, in the order of the classes."""
    return np.array([[probabilities[name] for name in classes]], np.float32)


def _largest_batch(source: Any) -> int:
    """Return the largest batch size that a package accepts."""
    if source.type.HasField("imageType"):
        return 1
    array = source.type.multiArrayType
    ranges = array.shapeRange.sizeRanges
    return int(ranges[0].upperBound if ranges else array.shape[0])
