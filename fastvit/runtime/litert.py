"""LiteRT models, on the CPU."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter

from fastvit.errors import UserError, first_line
from fastvit.runtime.artifact import Run
from fastvit.weights.description import METADATA_KEY


def read(path: Path, threads: int | None = None) -> tuple[str | None, Run]:
    """Load a model: return its metadata and a function that runs it.

    Raises:
        UserError: the file is corrupt.
    """
    try:
        content = path.read_bytes()
        interpreter = Interpreter(model_content=content, num_threads=threads)
        interpreter.allocate_tensors()
        metadata = _metadata(content)
        (signature,) = interpreter.get_signature_list().values()
        (source,) = signature["inputs"]
        runner = interpreter.get_signature_runner()
    except Exception as error:  # ValueError, RuntimeError, and what flatbuffers and struct raise
        raise UserError(f"LiteRT cannot read {path}: {first_line(error)}") from error

    # An interpreter has one set of tensors, from which the runner copies its outputs.
    running = threading.Lock()

    def run(images: np.ndarray) -> list[np.ndarray]:
        with running:
            outputs = runner(**{source: images})
        return [outputs[f"output_{i}"] for i in range(len(outputs))]

    return metadata, run


def _metadata(content: bytes) -> str | None:
    model = schema.Model.GetRootAs(content, 0)
    for field in (model.Metadata(i) for i in range(model.MetadataLength())):
        if field.Name() == METADATA_KEY.encode():
            return bytes(model.Buffers(field.Buffer()).DataAsNumpy()).decode()
    return None
