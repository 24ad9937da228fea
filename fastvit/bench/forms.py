"""One model in its forms and runtimes, or several models, timed in one run."""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.progress import Progress
from torch import nn

from fastvit.bench.latency import Timing, measure
from fastvit.errors import UserError
from fastvit.export.target import TARGETS
from fastvit.fusion import form, fuse
from fastvit.model.classifier import FastViT

REFERENCE = "train form"


def bench_forms(
    model: FastViT,
    batch: int = 1,
    size: tuple[int, int] | None = None,
    device: str = "cpu",
    compiled: bool = False,
    onnx: Path | None = None,
    rounds: int = 50,
) -> dict[str, Timing]:
    """Latency of a model: as trained, fused, compiled, and in onnxruntime.

    Args:
        model: in any form; a fused one has no train form to time.
        batch: images a call.
        size: height and width; by default the model's own.
        device: where PyTorch runs; onnxruntime runs on the CPU and only where `device` is "cpu".
        compiled: also time torch.compile on the fused form, which takes a minute to build.
        onnx: an exported artifact of the model; by default one is made for the occasion.
        rounds: timed calls of each.
    """
    if batch < 1 or rounds < 1:
        raise UserError(f"batch and rounds must be at least 1, got {batch} and {rounds}")
    height, width = size or model.preprocessing.size
    images = torch.randn(batch, model.config.in_chans, height, width, device=device)
    fused = fuse(model).to(device)
    calls: dict[str, Callable[[], object]] = {}
    if form(model) != "fused":
        original = copy.deepcopy(model).eval().to(device)
        calls[REFERENCE if form(model) == "train" else "merged form"] = _torch_call(original, images)
    calls["fused"] = _torch_call(fused, images)
    if compiled:
        calls["fused, torch.compile"] = _torch_call(torch.compile(fused), images)
    with tempfile.TemporaryDirectory() as folder:
        if device == "cpu":
            path = onnx or Path(folder) / "model.onnx"
            if onnx is None:
                TARGETS["onnx"].write(fused, path)
            run = TARGETS["onnx"].load(path)
            array = images.numpy()
            calls["onnxruntime"] = lambda: run(array)
        return _measure(calls, rounds)


def bench_models(models: Mapping[str, FastViT], device: str = "cpu", rounds: int = 50) -> dict[str, Timing]:
    """Latency of several models at batch 1 and each one's own size, fused, in PyTorch, taking turns in one run.

    Args:
        models: in any form, by name.
        device: where they run.
        rounds: timed calls of each.
    """
    if rounds < 1:
        raise UserError(f"rounds must be at least 1, got {rounds}")
    calls = {}
    for name, model in models.items():
        image = torch.randn(1, model.config.in_chans, *model.preprocessing.size, device=device)
        calls[name] = _torch_call(fuse(model).to(device), image)
    return _measure(calls, rounds)


def _measure(calls: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, Timing]:
    with Progress(console=Console(stderr=True), transient=True) as progress:
        bar = progress.add_task("timing", total=rounds)
        return measure(calls, rounds, tick=lambda: progress.advance(bar))


def _torch_call(
    model: nn.Module | Callable[[torch.Tensor], torch.Tensor], images: torch.Tensor
) -> Callable[[], object]:
    def call() -> np.ndarray:
        # The copy to the CPU waits for the device to finish.
        with torch.inference_mode():
            return model(images).cpu().numpy()

    return call
