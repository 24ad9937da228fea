"""ONNX: one file, with the description in metadata_props["fastvit"]."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from torch import Tensor, nn

from fastvit.export.program import Program
from fastvit.export.quantize.calibration import required
from fastvit.files import atomic
from fastvit.model.task_model import TaskModel
from fastvit.runtime.artifact import to_metadata
from fastvit.suppress_output import suppress_output
from fastvit.weights.description import METADATA_KEY

INPUT = "images"


def write(program: Program, path: Path, calibration: np.ndarray | None = None) -> None:
    """Write a program; in int8 depthwise convolutions, and layers that exceed the error bound, stay in float.

    Args:
        program: program to write.
        path: file to write.
        calibration: (N, C, H, W) calibration images, for int8.

    Raises:
        UserError: the file cannot be written, or there are no calibration images for int8.
    """
    if program.signature.precision == "int8":
        required(calibration)  # check before the slow part
    model = convert(program)
    if program.signature.precision == "int8":
        from fastvit.export.quantize.onnx import quantize

        model = quantize(model, calibration, program.keep_float)
    field = model.metadata_props.add()
    field.key, field.value = METADATA_KEY, to_metadata(program.description, program.signature)
    with atomic(path) as part:
        onnx.save(model, part)


def convert(program: Program) -> onnx.ModelProto:
    """Return a program as an ONNX graph, not quantized."""
    network = program.module.model
    tracing: AbstractContextManager[None] = nullcontext()
    operators: dict[Callable[..., Any], Callable[..., Any]] = {}
    if isinstance(network, TaskModel):
        tracing, operators = network.traceable(), network.onnx_operators()
    with torch.no_grad(), tracing:
        return _convert(
            program.module,
            program.example,
            *program.others,
            input_names=list(program.signature.inputs),
            output_names=list(program.signature.outputs),
            dynamic_shapes=program.dynamic_shapes,
            custom_translation_table=operators,
        )


def save_plain(network: nn.Module, images: Tensor, path: Path) -> None:
    """Write any network without a description, for benchmarks.

    Args:
        network: network with one input.
        images: (B, C, H, W) images, which give the input shape.
        path: file to write.
    """
    onnx.save(_convert(network, images), path)


def _convert(network: nn.Module, *inputs: Tensor, **options: Any) -> onnx.ModelProto:
    options = {"input_names": [INPUT], **options}
    with suppress_output():  # `convert` and `save_plain` are also called outside of a target
        exported = torch.onnx.export(network, inputs, dynamo=True, verbose=False, **options)
    assert exported is not None
    model: onnx.ModelProto = exported.model_proto
    for graph in (model.graph, *model.functions):
        for node in graph.node:
            # Source lines of this machine, half of a small file; int8 finds layers by the other properties.
            kept = [field for field in node.metadata_props if not field.key.endswith("stack_trace")]
            del node.metadata_props[:]
            node.metadata_props.extend(kept)
    return model
