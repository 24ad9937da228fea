"""Export targets: the table, and writing with proof."""

from __future__ import annotations

import copy
import importlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from fastvit.errors import UserError
from fastvit.files import atomic
from fastvit.fusion import fuse
from fastvit.model.classifier import FastViT
from fastvit.numerics import Differences, compare

Inference = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Target:
    """A format and the runtime that proves it; the module has `write(model, path)` and `load(path)`.

    Attributes:
        name: on the command line.
        suffix: of its files.
        runtime: what runs them, for reports.
        module: where it lives, imported when it is used.
        tolerance: largest relative difference of the logits that counts as equal.
    """

    name: str
    suffix: str
    runtime: str
    module: str
    tolerance: float

    def write(self, model: FastViT, path: Path) -> None:
        """Write a fused model, with its description in the file's own metadata."""
        importlib.import_module(self.module).write(model, path)

    def load(self, path: Path) -> Inference:
        """The artifact as a function of float32 (B, C, H, W) arrays to (B, classes) logits.

        Raises:
            UserError: the file is missing or damaged.
        """
        run: Inference = importlib.import_module(self.module).load(path)
        return run


TARGETS = {"onnx": Target("onnx", ".onnx", "onnxruntime", "fastvit.export.onnx", tolerance=1e-4)}


def find_target(name: str) -> Target:
    """A row of the table.

    Raises:
        UserError: there is no such target.
    """
    if name not in TARGETS:
        raise UserError(f"no export target is called {name!r}; there are {', '.join(TARGETS)}")
    return TARGETS[name]


@dataclass(frozen=True)
class Exported:
    """An artifact and its proof: the differences between it, in its own runtime, and the model it was made from."""

    path: Path
    target: Target
    differences: Differences
    images: int


def export(model: FastViT, target: Target, path: Path, images: Tensor) -> Exported:
    """Fuse, write, read back, run, compare with the given model.

    Args:
        model: in any form; it is what the artifact is compared with.
        target: of the table.
        path: file to write; its suffix must be the target's.
        images: (B, C, H, W), what the two are compared on.

    Raises:
        UserError: wrong suffix, or the artifact's answers are further from the model's than the target tolerates; what
            was at `path` before is then still there.
    """
    if path.suffix != target.suffix:
        raise UserError(f"{path}: files of the {target.name} target end in {target.suffix}")
    images = images.cpu().float()
    with torch.inference_mode():
        reference = copy.deepcopy(model).cpu().float().eval()(images)
    with atomic(path) as part:
        proved = part.with_suffix(target.suffix)
        try:
            target.write(fuse(model).cpu().float(), proved)
            differences = compare(reference, target.load(proved)(images.numpy()))
            if not differences.relative <= target.tolerance:
                raise UserError(
                    f"{path} was not written: it would not compute what the model does in {target.runtime}: "
                    f"{differences} (tolerated: {target.tolerance:.0e} relative)"
                )
            proved.replace(part)
        finally:
            proved.unlink(missing_ok=True)
    return Exported(path, target, differences, len(images))
