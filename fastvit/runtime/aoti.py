"""AOTInductor packages, compiled for the CPU of the machine that exported them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from fastvit.errors import UserError, first_line
from fastvit.runtime.artifact import Run
from fastvit.weights.description import METADATA_KEY


def read(path: Path, threads: int | None = None) -> tuple[str | None, Run]:
    """Load a package: return its metadata and a function that runs it.

    PyTorch's threads run it, so `threads` has no effect.

    Raises:
        UserError: the package is corrupt, or was compiled for another machine.
    """
    try:
        program = torch._inductor.aoti_load_package(str(path))
    except Exception as error:  # zip, loader and torch errors of several kinds
        raise UserError(f"AOTInductor cannot load {path}: {first_line(error)}") from error

    def run(images: np.ndarray) -> list[np.ndarray]:
        with torch.inference_mode():
            outputs = program(torch.from_numpy(images))
        return [output.numpy() for output in (outputs if isinstance(outputs, (list, tuple)) else [outputs])]

    return program.loader.get_metadata().get(METADATA_KEY), run
