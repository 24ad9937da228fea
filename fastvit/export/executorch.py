"""ExecuTorch (.pte) with XNNPACK on the CPU; the method "fastvit" returns the description."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from fastvit.export.program import Program
from fastvit.export.pt2 import trace
from fastvit.files import atomic
from fastvit.runtime.artifact import to_metadata
from fastvit.weights.description import METADATA_KEY


def write(program: Program, path: Path, calibration: np.ndarray | None = None) -> None:
    """Write a program; ExecuTorch's portable operators run what XNNPACK does not support.

    Args:
        program: program to write.
        path: file to write.
        calibration: (N, C, H, W) calibration images, for int8.

    Raises:
        UserError: the file cannot be written, or there are no calibration images for int8.
    """
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner

    partitioner, exported = XnnpackPartitioner(), trace(program)
    if program.signature.precision == "int8":
        from fastvit.export.quantize.pt2e import quantize

        exported = quantize(exported, calibration, program.signature.batch)
    lower(program, exported, path, partitioner)


def lower(program: Program, exported: torch.export.ExportedProgram, path: Path, partitioner: object) -> None:
    """Lower the supported parts of a program to a backend, and write the program.

    Args:
        program: program with a fixed batch size and image size.
        exported: the exported program, quantized or not.
        path: file to write.
        partitioner: partitioner of the backend.

    Raises:
        UserError: the file cannot be written.
    """
    metadata = to_metadata(program.description, program.signature)
    from executorch.exir import to_edge_transform_and_lower

    edge = to_edge_transform_and_lower(exported, partitioner=[partitioner], constant_methods={METADATA_KEY: metadata})
    content = edge.to_executorch().buffer
    with atomic(path) as part:
        part.write_bytes(content)
