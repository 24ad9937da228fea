"""ExecuTorch programs, in the runtime of its Python package."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import torch
from executorch.extension.pybindings import portable_lib
from executorch.runtime import Method, Program, Runtime

from fastvit.errors import UserError, first_line
from fastvit.runtime.artifact import Run
from fastvit.weights.description import METADATA_KEY


def read(path: Path, threads: int | None = None) -> tuple[str | None, Run]:
    """Load a program: return its metadata and a function that runs it.

    ExecuTorch has one thread pool per process, so `threads` applies to all programs.

    Raises:
        UserError: the file is corrupt, or needs a backend that is not available.
    """
    if threads:
        portable_lib._unsafe_reset_threadpool(threads)
    try:
        program = Runtime.get().load_program(path.read_bytes())
        metadata = program.load_method(METADATA_KEY) if METADATA_KEY in program.method_names else None
        method = program.load_method("forward")
        assert isinstance(method, Method)
    except Exception as error:  # RuntimeError with a number, and OSError
        raise UserError(f"ExecuTorch cannot load {path}: {first_line(error)}") from error

    # A method has one set of buffers.
    executing = threading.Lock()

    def run(images: np.ndarray, program: Program = program) -> list[np.ndarray]:
        # A method does not keep its program alive, and crashes without it.
        with executing:
            return [output.numpy() for output in method.execute([torch.from_numpy(images)])]

    return str(metadata.execute([])[0]) if metadata else None, run
