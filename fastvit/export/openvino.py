"""OpenVINO: NAME.xml with its weights in NAME.bin; the description is in rt_info."""

from __future__ import annotations

import tempfile
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import onnx
import openvino

from fastvit.errors import UserError
from fastvit.export.onnx import convert
from fastvit.export.program import Program
from fastvit.export.quantize.calibration import matching, required
from fastvit.runtime.artifact import to_metadata
from fastvit.weights.description import METADATA_KEY


def write(program: Program, path: Path, calibration: np.ndarray | None = None) -> None:
    """Write a program, through ONNX: from a torch.export program OpenVINO makes every size dynamic.

    fp16 stores the weights in float16; bf16 makes the runtime compute in bfloat16.

    Args:
        program: program to write.
        path: file to write.
        calibration: (N, C, H, W) calibration images, for int8.

    Raises:
        UserError: there are no calibration images for int8, or NNCF is not installed.
    """
    if program.signature.precision == "int8":
        if find_spec("nncf") is None:
            raise UserError('openvino in int8 needs nncf: pip install "fastvit[openvino]"')
        required(calibration)  # check before the slow part
    graph = convert(program)
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "model.onnx"
        onnx.save(graph, source)
        model = openvino.convert_model(source)
        if program.signature.precision == "int8":
            from fastvit.export.quantize.openvino import quantize
            from fastvit.export.quantize.qdq import layers

            found = layers(graph)
            keep = matching([layer.name for layer in found], program.keep_float)
            model = quantize(model, found, calibration, keep)
        model.set_rt_info(to_metadata(program.description, program.signature), METADATA_KEY)
        openvino.save_model(model, path, compress_to_fp16=program.signature.precision == "fp16")
