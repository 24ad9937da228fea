"""AOTInductor packages, compiled for the CPU of this machine; the description is in the metadata."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from fastvit.export.program import Program
from fastvit.export.pt2 import trace
from fastvit.runtime.artifact import to_metadata
from fastvit.weights.description import METADATA_KEY


def write(program: Program, path: Path, calibration: np.ndarray | None = None) -> None:
    """Compile and write a program; needs a C++ compiler.

    Args:
        program: program to write.
        path: file to write.
        calibration: not used.
    """
    metadata = to_metadata(program.description, program.signature)
    torch._inductor.aoti_compile_and_package(
        trace(program),
        package_path=str(path),
        inductor_configs={"aot_inductor.metadata": {METADATA_KEY: metadata}, "freezing": True},
    )
