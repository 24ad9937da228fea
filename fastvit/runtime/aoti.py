"""AOTInductor packages, compiled ahead for a CPU of this kind."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from fastvit.errors import UserError, first_line
from fastvit.runtime.artifact import Run
from fastvit.weights.description import METADATA_KEY


def read(path: Path, threads: int | None = None) -> tuple[str | None, Run]:
    """What the package says of itself, and how to run it. Its threads are PyTorch's: `threads` is not for here.

    Raises:
        UserError: the package is damaged, or made for another machine.
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
