"""TorchScript as an export target and a runtime that another package would add."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

import fastvit
from fastvit.export.program import Program
from fastvit.runtime.artifact import to_metadata

FIELD = "fastvit.json"


def write(program: Program, path: Path, calibration: np.ndarray | None) -> None:
    traced = torch.jit.trace(program.module, (program.example, *program.others))
    metadata = to_metadata(program.description, program.signature)
    torch.jit.save(traced, path, _extra_files={FIELD: metadata})


def read(path: Path, threads: int | None) -> tuple[str, Callable[..., list[np.ndarray]]]:
    files = {FIELD: ""}
    loaded = torch.jit.load(path, _extra_files=files)

    def run(*inputs: np.ndarray) -> list[np.ndarray]:
        with torch.inference_mode():
            return [output.numpy() for output in loaded(*map(torch.from_numpy, inputs))]

    return files[FIELD].decode(), run


TARGET = fastvit.Target(
    name="torchscript",
    suffix=".torchscript",
    runtime="torchscript",
    module=__name__,
    packages=("torch",),
    install="pip install torch",
    precisions=("fp32",),
)
RUNTIME = fastvit.Runtime("torchscript", (".torchscript",), __name__, "torch", "pip install torch")
