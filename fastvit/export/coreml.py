"""Core ML (.mlpackage), for iOS 16, macOS 13 and later; the description is in the user-defined metadata.

iOS 16 is the first version with compressed weights, and runs on phones from 2017 on.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from fastvit.errors import UserError
from fastvit.export.program import Program
from fastvit.runtime.artifact import Precision, to_metadata
from fastvit.weights.description import METADATA_KEY

INPUT = "images"
# Core ML's name of the label of an image; the probabilities of all classes are then "classLabel_probs".
LABEL = "classLabel"
# Core ML needs an upper bound for a dynamic batch; our runtime splits larger ones.
MAX_BATCH = 64
_COLORS = {1: "GRAYSCALE", 3: "RGB"}


def write(program: Program, path: Path, calibration: np.ndarray | None = None) -> None:
    """Convert and write a program.

    Pixels are an image input (one per call), other inputs are arrays. If the output is probabilities, the batch size is
    1 and the classes have names, Core ML returns a label and a dictionary of probabilities, else arrays. fp32 computes
    in float32, the others in float16: "int8" with 8-bit weights per output channel, "palettized" with 64 weight values
    per tensor, found by k-means.

    Args:
        program: program to write.
        path: package to write.
        calibration: not used: weights are compressed without images.

    Raises:
        UserError: Core ML cannot take the pixels as an image.
    """
    inputs = _inputs(program)
    import coremltools

    # The input is float; without this, operators remain that coremltools does not support.
    exported = torch.export.export(
        program.module, (program.example.float(),), dynamic_shapes=program.dynamic_shapes
    ).run_decompositions({})
    exact = program.signature.precision == "fp32"
    model = coremltools.convert(
        exported,
        inputs=[inputs],
        outputs=[coremltools.TensorType(name=name, dtype=np.float32) for name in program.signature.outputs],
        classifier_config=_classifier(program),
        compute_precision=coremltools.precision.FLOAT32 if exact else coremltools.precision.FLOAT16,
        minimum_deployment_target=coremltools.target.iOS16,
        skip_model_load=True,
    )
    model = _compressed(model, program.signature.precision)
    model.short_description = f"{program.description.variant}, a FastViT for {program.description.task}"
    model.user_defined_metadata[METADATA_KEY] = to_metadata(program.description, program.signature)
    model.save(str(path))


def _inputs(program: Program) -> Any:
    """Return the type of the input, as coremltools takes it."""
    import coremltools

    _, channels, height, width = program.example.shape
    batch = program.signature.batch
    if program.signature.input != "pixels":
        batches = coremltools.RangeDim(1, MAX_BATCH, default=1) if batch is None else batch
        return coremltools.TensorType(name=INPUT, shape=(batches, channels, height, width), dtype=np.float32)
    if batch != 1 or channels not in _COLORS:
        raise UserError(
            "Core ML takes one image of 1 or 3 channels per call as pixels: give --batch 1, or another --input"
        )
    return coremltools.ImageType(name=INPUT, shape=(1, channels, height, width), color_layout=_COLORS[channels])


def _classifier(program: Program) -> Any:
    """Return the configuration of a classifier with class names, if Core ML supports it; else None."""
    import coremltools

    classes = program.description.classes
    if program.signature.outputs != ("probabilities",) or program.signature.batch != 1 or classes is None:
        return None
    if len(set(classes)) < len(classes):  # they are the keys of one dictionary
        return None
    return coremltools.ClassifierConfig(list(classes), LABEL)


def _compressed(model: Any, precision: Precision) -> Any:
    """Return the model with its larger weights compressed, if the precision asks for it."""
    import coremltools.optimize.coreml as compress

    if precision == "int8":
        quantizer = compress.OpLinearQuantizerConfig(mode="linear_symmetric")
        return compress.linear_quantize_weights(model, compress.OptimizationConfig(global_config=quantizer))
    if precision == "palettized":
        palettizer = compress.OpPalettizerConfig(mode="kmeans", nbits=6)
        return compress.palettize_weights(model, compress.OptimizationConfig(global_config=palettizer))
    return model
