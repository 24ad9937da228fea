"""ExecuTorch (.pte) with XNNPACK on the CPU; its metadata is what the method "fastvit" returns."""

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
    """Write a program; what XNNPACK does not take runs in ExecuTorch's portable operators.

    Raises:
        UserError: the file cannot be written, or there are no images to calibrate int8 on.
    """
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner

    partitioner, exported = XnnpackPartitioner(), trace(program)
    if program.signature.precision == "int8":
        from fastvit.export.quantize.pt2e import quantize

        exported = quantize(exported, calibration, program.signature.batch)
    lower(program, exported, path, partitioner)


def lower(program: Program, exported: torch.export.ExportedProgram, path: Path, partitioner: object) -> None:
    """Give a backend the parts of a program that it takes, and write the whole.

    Args:
        program: of fixed batch and size.
        exported: the program as torch.export sees it, or what quantization made of that.
        path: file to write.
        partitioner: of the backend.

    Raises:
        UserError: the file cannot be written.
    """
    metadata = to_metadata(program.description, program.signature)
    from executorch.exir import to_edge_transform_and_lower

    edge = to_edge_transform_and_lower(exported, partitioner=[partitioner], constant_methods={METADATA_KEY: metadata})
    content = edge.to_executorch().buffer
    with atomic(path) as part:
        part.write_bytes(content)
