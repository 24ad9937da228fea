"""ONNX files in ONNX Runtime, on the CPU."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime

from fastvit.errors import UserError, first_line
from fastvit.runtime.artifact import Run
from fastvit.weights.description import METADATA_KEY


def read(path: Path, threads: int | None = None) -> tuple[str | None, Run]:
    """Load a file: return its metadata and a function that runs it.

    Raises:
        UserError: the file is corrupt.
    """
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = threads or 0
    # Otherwise its threads keep spinning after a run and slow down other computation in this process.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    try:
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's own exceptions have no common base but Exception
        raise UserError(f"onnxruntime cannot read {path}: {first_line(error)}") from error
    names = [source.name for source in session.get_inputs()]

    def run(*inputs: np.ndarray) -> list[np.ndarray]:
        return [np.asarray(output) for output in session.run(None, dict(zip(names, inputs, strict=True)))]

    return session.get_modelmeta().custom_metadata_map.get(METADATA_KEY), run
