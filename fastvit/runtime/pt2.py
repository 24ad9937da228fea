"""Programs of torch.export, in PyTorch on the CPU."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from fastvit.errors import UserError, first_line
from fastvit.runtime.artifact import Run
from fastvit.runtime.pt2_archive import read_archive


def read(path: Path, threads: int | None = None) -> tuple[str | None, Run]:
    """Load a program: return its metadata and a function that runs it.

    PyTorch has one thread pool per process, so `threads` has no effect.

    Raises:
        UserError: the file is corrupt, or contains something that `fastvit export` does not write.
    """
    try:
        archive, metadata = read_archive(path)
        module = torch.export.load(archive).module()
    except UserError:
        raise
    except Exception as error:  # zip, JSON and torch errors of several kinds
        raise UserError(f"torch.export cannot read {path}: {first_line(error)}") from error

    def run(images: np.ndarray) -> list[np.ndarray]:
        with torch.inference_mode():
            outputs = module(torch.from_numpy(images))
        return [output.numpy() for output in (outputs if isinstance(outputs, (list, tuple)) else [outputs])]

    return metadata, run
