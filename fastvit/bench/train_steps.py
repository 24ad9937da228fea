"""Training steps side by side: ours in each train form, compiled or not, and timm's, taking turns in one run.

A step is forward, cross entropy and backward, without an optimizer; on a GPU under bfloat16 autocast.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fastvit.bench.harness import Call, side_by_side
from fastvit.bench.report import ratio_cell, timing_cells, timing_columns, write_csv
from fastvit.collapse import CollapseMode, collapse_branches
from fastvit.console import new_progress
from fastvit.create import create_model
from fastvit.errors import UserError, unknown_name
from fastvit.model.variants import find_variant
from fastvit.reports.page import Table
from fastvit.timing import PATIENCE, Timing

REFERENCE = "timm"


@dataclass(frozen=True)
class StepWay:
    """A way to train a network.

    Attributes:
        name: for tables and the command line.
        collapse: mode of `fastvit.collapse_branches`; None for timm's network.
        last: channels last in memory.
        compiled: by torch.compile.
        branches: with those that over-parameterize it; without, every RepConv is one convolution and its norm.
    """

    name: str
    collapse: CollapseMode | None
    last: bool = True
    compiled: bool = False
    branches: bool = True


STEP_WAYS = {
    way.name: way
    for way in (
        StepWay("timm", None, last=False),
        StepWay("timm-channels-last", None),
        StepWay("plain", "never", last=False),
        StepWay("plain-channels-last", "never"),
        StepWay("collapsed", "always", last=False),
        StepWay("collapsed-channels-last", "always"),
        StepWay("auto", "auto", last=False),
        StepWay("auto-channels-last", "auto"),
        StepWay("one-branch", "never", branches=False),
        StepWay("one-branch-collapsed", "always", branches=False),
        StepWay("timm-compiled", None, compiled=True),
        StepWay("plain-compiled", "never", compiled=True),
        StepWay("collapsed-compiled", "always", compiled=True),
        StepWay("one-branch-compiled", "never", compiled=True, branches=False),
    )
}


@dataclass(frozen=True)
class StepResult:
    """What was measured of a way.

    Attributes:
        variant: of the network.
        way: how it was trained.
        batch: images a step.
        size: side of the images in pixels.
        timing: of a step; None where it failed.
        kept: megabytes (1e6 bytes) of activations that the forward pass keeps for the backward pass.
        peak: megabytes at the peak of a step on a GPU, with the network; None elsewhere.
        speedup: against timm's eager step in its default memory format, where that was timed.
        failure: why it failed, in one line.
    """

    variant: str
    way: StepWay
    batch: int
    size: int
    timing: Timing | None = None
    kept: float | None = None
    peak: float | None = None
    speedup: float | None = None
    failure: str = ""


def find_step_ways(names: str, device: str) -> list[StepWay]:
    """Ways by their names, joined by commas; "all" for all, "auto" on a CPU without the compiled ones, which
    take minutes to build there.

    Raises:
        UserError: there is no such way.
    """
    if names == "all" or (names == "auto" and device != "cpu"):
        return list(STEP_WAYS.values())
    if names == "auto":
        return [way for way in STEP_WAYS.values() if not way.compiled]
    chosen = [name.strip() for name in names.split(",")]
    if unknown := [name for name in chosen if name not in STEP_WAYS]:
        raise unknown_name("training step", unknown[0], ["auto", "all", *STEP_WAYS])
    return [STEP_WAYS[name] for name in chosen]


def bench_steps(
    variant: str, ways: Sequence[StepWay], batch: int, size: int, device: str = "cpu", rounds: int = 30
) -> list[StepResult]:
    """Time the training steps of one variant on random images, all ways taking turns.

    Args:
        variant: its name.
        ways: to train it.
        batch: images a step, from 2 on.
        size: side of the images in pixels.
        device: of PyTorch.
        rounds: timed steps of each, at first; up to four times as many while the medians still move.
    """
    if batch < 2 or rounds < 1:
        raise UserError(f"a training step needs a batch of at least 2 and a round, got {batch} and {rounds}")
    name = find_variant(variant).name
    memory: dict[StepWay, tuple[float, float | None]] = {}

    def make_step(way: StepWay) -> Call:
        step, kept, peak = _prepared(name, way, batch, size, device)
        memory[way] = kept, peak
        return step

    with new_progress() as progress:
        makers = {way: partial(make_step, way) for way in ways}
        timings, failures = side_by_side(makers, rounds, progress, warmup=2, patience=PATIENCE)
    reference = next((timing for way, timing in timings.items() if way.name == REFERENCE), None)
    results = []
    for way in ways:
        result = StepResult(name, way, batch, size, failure=failures.get(way, ""))
        if timing := timings.get(way):
            kept, peak = memory[way]
            speedup = reference.median / timing.median if reference else None
            result = replace(result, timing=timing, kept=kept, peak=peak, speedup=speedup)
        results.append(result)
    return results


def _prepared(name: str, way: StepWay, batch: int, size: int, device: str) -> tuple[Call, float, float | None]:
    """A step that has run, what it keeps, and its peak on a GPU."""
    gc.collect()
    before = torch.cuda.memory_allocated() if device == "cuda" else 0
    network = _network(name, way).train().to(device)
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(batch, 3, size, size, generator=generator).to(device)
    if way.last:
        images = images.contiguous(memory_format=torch.channels_last)
    labels = torch.randint(0, 1000, (batch,), generator=generator).to(device)
    # On a CPU inductor would turn timm's stem into channels last, which `_network` keeps it from.
    compiled = torch.compile(network, options={"layout_optimization": False} if device == "cpu" else None)
    run: Callable[[Tensor], Tensor] = compiled if way.compiled else network

    def loss() -> Tensor:
        with torch.autocast("cuda", torch.bfloat16) if device == "cuda" else nullcontext():
            return F.cross_entropy(run(images), labels)

    def step() -> None:
        loss().backward()
        network.zero_grad(set_to_none=True)
        if device == "cuda":
            torch.cuda.synchronize()

    step()
    kept = _kept(loss, network, images)
    if device != "cuda":
        return step, kept, None
    torch.cuda.reset_peak_memory_stats()
    step()
    return step, kept, (torch.cuda.max_memory_allocated() - before) / 1e6


def _network(name: str, way: StepWay) -> nn.Module:
    torch.manual_seed(0)
    if way.collapse is None:
        import timm

        theirs = timm.create_model(name)
        if way.last:
            theirs = theirs.to(memory_format=torch.channels_last)
            # In channels last a CPU would corrupt memory: see `fastvit.model.layers.StridedPointwise`.
            theirs.stem[0].to(memory_format=torch.contiguous_format)
        return theirs
    model = create_model(name, overparameterized=way.branches)
    collapse_branches(model, way.collapse)
    return model.to(memory_format=torch.channels_last) if way.last else model


def _kept(loss: Callable[[], Tensor], network: nn.Module, images: Tensor) -> float:
    """Megabytes that autograd keeps, but for the network and the images; what is kept twice counts once."""
    known = {t.untyped_storage().data_ptr() for t in (*network.parameters(), *network.buffers(), images)}
    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in known:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        value = loss()  # holding it holds everything that is kept, so that no address is used twice
        total = sum(kept.values())
    del value
    return total / 1e6


def step_table(results: Sequence[StepResult]) -> Table:
    """A row a way that was timed."""
    header = ("network", "step", "batch", "size", "ms", "quartiles", "settled", "images/s", "against timm", "kept, MB")
    rows = []
    for result in results:
        timing = result.timing
        if timing is None:
            continue
        rows.append(
            [
                result.variant,
                result.way.name,
                str(result.batch),
                str(result.size),
                *timing_cells(timing, 1),
                "yes" if timing.settled else "no",
                f"{1e3 * result.batch / timing.median:.1f}",
                ratio_cell(result.speedup),
                f"{result.kept:.0f}",
                *([f"{result.peak:.0f}"] if result.peak is not None else []),
            ]
        )
    peak = any(result.peak is not None for result in results)
    return Table((*header, *(["peak, MB"] if peak else [])), rows)


def write_steps(folder: Path, results: Sequence[StepResult]) -> Path:
    """Write steps.csv with every number, and with what failed, into a folder that is made; returns its path."""
    path = folder / "steps.csv"
    write_csv(path, [_row(result) for result in results])
    return path


def _row(result: StepResult) -> dict[str, object]:
    return {
        "network": result.variant,
        "step": result.way.name,
        "batch": result.batch,
        "size": result.size,
        **timing_columns(result.timing),
        "speedup": result.speedup,
        "kept_mb": result.kept,
        "peak_mb": result.peak,
        "failure": result.failure,
    }
