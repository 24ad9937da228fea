"""torch.export's programs (.pt2), with what they say of themselves among the archive's extra files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from fastvit.export.program import Program
from fastvit.runtime.artifact import to_metadata
from fastvit.weights.description import METADATA_KEY


def write(program: Program, path: Path, calibration: np.ndarray | None = None) -> None:
    """Write a program."""
    exported = trace(program)
    torch.export.save(exported, path, extra_files={METADATA_KEY: to_metadata(program.description, program.signature)})


def trace(program: Program) -> torch.export.ExportedProgram:
    """A program as torch.export sees it."""
    with torch.no_grad():
        return torch.export.export(program.module, (program.example,), dynamic_shapes=program.dynamic_shapes)
