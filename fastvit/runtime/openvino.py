"""OpenVINO's own files, and ONNX files, in OpenVINO on the CPU."""

from __future__ import annotations

import json
import threading
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from queue import SimpleQueue

import numpy as np
import openvino

from fastvit.errors import UserError, first_line
from fastvit.runtime.artifact import Run
from fastvit.weights.description import METADATA_KEY

# Number of shapes of a dynamic artifact that stay compiled.
SHAPES = 4
# Precision in which the plugin may compute. By default it uses bfloat16 if the CPU has it, also for float32 models.
_HINTS = {"fp32": "f32", "fp16": "f32", "bf16": "bf16", "int8": "f32"}


def read(path: Path, threads: int | None = None) -> tuple[str | None, Run]:
    """Load a file: return its metadata and a function that runs it.

    Raises:
        UserError: the file is corrupt.
    """
    try:
        model = openvino.Core().read_model(path)
        metadata = _metadata(model, path)
        settings: dict[str, object] = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": _hint(metadata)}
        if threads:
            settings["INFERENCE_NUM_THREADS"] = threads
        # Dynamic shapes are compiled as well: only the compiler finds every corruption.
        compiled = openvino.Core().compile_model(model, "CPU", settings)
    except Exception as error:  # OpenVINO raises RuntimeError, and what its plugins raise
        raise UserError(f"OpenVINO cannot read {path}: {first_line(error)}") from error
    if model.is_dynamic():
        return metadata, _by_shape(model, settings)
    return metadata, _run(compiled)


def _run(compiled: openvino.CompiledModel) -> Run:
    # A request keeps the outputs of its last call and serves one call at a time. More requests than the plugin runs at
    # once would only use memory.
    idle: SimpleQueue[openvino.InferRequest] = SimpleQueue()
    for _ in range(compiled.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS")):
        idle.put(compiled.create_infer_request())

    def run(*inputs: np.ndarray) -> list[np.ndarray]:
        request = idle.get()
        try:
            outputs = request.infer(list(inputs), share_inputs=True)
            return [np.array(outputs[output]) for output in compiled.outputs]
        finally:
            idle.put(request)

    return run


def _by_shape(model: openvino.Model, settings: dict[str, object]) -> Run:
    """Compile each input shape on its first call, which takes tenths of a second; dynamic shapes run slower."""

    @lru_cache(SHAPES)
    def fixed(*shapes: tuple[int, ...]) -> Run:
        shaped = model.clone()
        shaped.reshape({source: list(shape) for source, shape in zip(shaped.inputs, shapes, strict=True)})
        return _run(openvino.Core().compile_model(shaped, "CPU", settings))

    compiling = threading.Lock()

    def run(*inputs: np.ndarray) -> Sequence[np.ndarray]:
        with compiling:  # threads with the same new shape wait for one compilation
            shaped = fixed(*(one.shape for one in inputs))
        return shaped(*inputs)

    return run


def _metadata(model: openvino.Model, path: Path) -> str | None:
    if path.suffix == ".onnx":  # the frontend drops the file's metadata
        import onnx

        fields = onnx.load(path, load_external_data=False).metadata_props
        return next((field.value for field in fields if field.key == METADATA_KEY), None)
    return str(model.get_rt_info(METADATA_KEY).value) if model.has_rt_info(METADATA_KEY) else None


def _hint(metadata: str | None) -> str:
    precision = json.loads(metadata)["artifact"]["precision"] if metadata else "fp32"
    return _HINTS[precision]
