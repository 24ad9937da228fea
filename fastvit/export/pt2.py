"""torch.export programs (.pt2), with the description in an extra file of the archive."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch.fx import GraphModule

from fastvit.errors import UserError
from fastvit.export.program import Program
from fastvit.runtime.artifact import to_metadata
from fastvit.runtime.pt2_archive import OPERATORS
from fastvit.weights.description import METADATA_KEY


def write(program: Program, path: Path, calibration: np.ndarray | None = None) -> None:
    """Write a program.

    Args:
        program: program to write.
        path: file to write.
        calibration: not used.

    Raises:
        UserError: an operator is not in the list that `fastvit.runtime.pt2_archive` allows.
    """
    exported = trace(program)
    called = {str(node.target) for node in exported.graph.nodes if isinstance(node.target, torch._ops.OpOverload)}
    if unknown := sorted(called - {f"aten.{operator}" for operator in OPERATORS}):
        raise UserError(
            f"this network has the operator {unknown[0]}, which .pt2 files may not call, as some operators corrupt "
            "memory: export it to another target, such as onnx"
        )
    for module in exported.graph_module.modules():
        for node in module.graph.nodes if isinstance(module, GraphModule) else []:
            node.meta.pop("stack_trace", None)  # source files of this machine
    torch.export.save(exported, path, extra_files={METADATA_KEY: to_metadata(program.description, program.signature)})


def trace(program: Program) -> torch.export.ExportedProgram:
    """Return a program as torch.export traces it."""
    with torch.no_grad():
        return torch.export.export(program.module, (program.example,), dynamic_shapes=program.dynamic_shapes)
