"""ExecuTorch (.coreml.pte) with Core ML, for apps that use ExecuTorch and Apple's accelerators."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from fastvit.export.executorch import lower
from fastvit.export.program import Program
from fastvit.export.pt2 import trace


def write(program: Program, path: Path, calibration: np.ndarray | None = None) -> None:
    """Write a program for iOS 16, macOS 13 and later.

    Args:
        program: program to write.
        path: file to write.
        calibration: not used.

    Raises:
        UserError: the file cannot be written.
    """
    import coremltools
    from executorch.backends.apple.coreml.compiler import CoreMLBackend
    from executorch.backends.apple.coreml.partition import CoreMLPartitioner

    half = program.signature.precision == "fp16"
    specs = CoreMLBackend.generate_compile_specs(
        compute_precision=coremltools.precision.FLOAT16 if half else coremltools.precision.FLOAT32,
        minimum_deployment_target=coremltools.target.iOS16,
    )
    partitioner = CoreMLPartitioner(compile_specs=specs)
    lower(program, trace(program), path, partitioner)
