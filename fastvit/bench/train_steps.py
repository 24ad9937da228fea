"""Training steps side by side: FastViT in each form, compiled or not, and timm's network, in one run.

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
class StepConfiguration:
    """Configuration of a training step.

    Attributes:
        name: name for tables and the command line.
        collapse: mode of `fastvit.collapse_branches`; None for timm's network.
        last: whether memory is in channels-last format.
        compiled: whether torch.compile compiles the network.
        branches: whether the network is over-parameterized; if not, a RepConv is one convolution and its batch norm.
    """

    name: str
    collapse: CollapseMode | None
    last: bool = True
    compiled: bool = False
    branches: bool = True


STEP_CONFIGURATIONS = {
    configuration.name: configuration
    for configuration in (
        StepConfiguration("timm", None, last=False),
        StepConfiguration("timm-channels-last", None),
        StepConfiguration("plain", "never", last=False),
        StepConfiguration("plain-channels-last", "never"),
        StepConfiguration("collapsed", "always", last=False),
        StepConfiguration("collapsed-channels-last", "always"),
        StepConfiguration("auto", "auto", last=False),
        StepConfiguration("auto-channels-last", "auto"),
        StepConfiguration("one-branch", "never", branches=False),
        StepConfiguration("one-branch-collapsed", "always", branches=False),
        StepConfiguration("timm-compiled", None, compiled=True),
        StepConfiguration("plain-compiled", "never", compiled=True),
        StepConfiguration("collapsed-compiled", "always", compiled=True),
        StepConfiguration("one-branch-compiled", "never", compiled=True, branches=False),
    )
}


@dataclass(frozen=True)
class StepResult:
    """Measurement of a training step.

    Attributes:
        variant: name of the variant.
        configuration: how the step was computed.
        batch: batch size.
        size: height and width of the images, in pixels.
        timing: time of a step; None if it failed.
        activation_mb: activation memory: megabytes (1e6 bytes) that the forward pass keeps for the backward pass.
        peak: peak memory of a step on a GPU, network included, in megabytes; None on other devices.
        speedup: speedup over timm's eager step in its default memory format, if that was timed.
        failure: reason of the failure, in one line.
    """

    variant: str
    configuration: StepConfiguration
    batch: int
    size: int
    timing: Timing | None = None
    activation_mb: float | None = None
    peak: float | None = None
    speedup: float | None = None
    failure: str = ""


def find_step_configurations(names: str, device: str) -> list[StepConfiguration]:
    """Return configurations by name.

    Args:
        names: names, separated by commas; "all" for all, "auto" on a CPU for those without torch.compile, which takes
            minutes there.
        device: device of PyTorch.

    Raises:
        UserError: a configuration does not exist.
    """
    if names == "all" or (names == "auto" and device != "cpu"):
        return list(STEP_CONFIGURATIONS.values())
    if names == "auto":
        return [configuration for configuration in STEP_CONFIGURATIONS.values() if not configuration.compiled]
    chosen = [name.strip() for name in names.split(",")]
    if unknown := [name for name in chosen if name not in STEP_CONFIGURATIONS]:
        raise unknown_name("training step configuration", unknown[0], ["auto", "all", *STEP_CONFIGURATIONS])
    return [STEP_CONFIGURATIONS[name] for name in chosen]


def bench_steps(
    variant: str,
    configurations: Sequence[StepConfiguration],
    batch: int,
    size: int,
    device: str = "cpu",
    rounds: int = 30,
) -> list[StepResult]:
    """Time the training steps of one variant on random images, all configurations taking turns.

    Args:
        variant: name of the variant.
        configurations: how to compute the step.
        batch: batch size, at least 2.
        size: height and width of the images, in pixels.
        device: device of PyTorch.
        rounds: number of timed steps of each configuration, at first; up to four times as many until the medians
            converge.

    Raises:
        UserError: the variant does not exist, or batch or rounds is too small.
    """
    if batch < 2 or rounds < 1:
        raise UserError(f"batch must be at least 2 and rounds at least 1, got {batch} and {rounds}")
    name = find_variant(variant).name
    memory: dict[StepConfiguration, tuple[float, float | None]] = {}

    def make_step(configuration: StepConfiguration) -> Call:
        step, activation_mb, peak = _prepared(name, configuration, batch, size, device)
        memory[configuration] = activation_mb, peak
        return step

    with new_progress() as progress:
        makers = {configuration: partial(make_step, configuration) for configuration in configurations}
        timings, failures = side_by_side(makers, rounds, progress, warmup=2, patience=PATIENCE)
    reference = next((timing for configuration, timing in timings.items() if configuration.name == REFERENCE), None)
    results = []
    for configuration in configurations:
        result = StepResult(name, configuration, batch, size, failure=failures.get(configuration, ""))
        if timing := timings.get(configuration):
            activation_mb, peak = memory[configuration]
            speedup = reference.median / timing.median if reference else None
            result = replace(result, timing=timing, activation_mb=activation_mb, peak=peak, speedup=speedup)
        results.append(result)
    return results


def _prepared(
    name: str, configuration: StepConfiguration, batch: int, size: int, device: str
) -> tuple[Call, float, float | None]:
    """Return a step that has run once, its activation memory, and its peak memory on a GPU."""
    gc.collect()
    before = torch.cuda.memory_allocated() if device == "cuda" else 0
    network = _network(name, configuration).train().to(device)
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(batch, 3, size, size, generator=generator).to(device)
    if configuration.last:
        images = images.contiguous(memory_format=torch.channels_last)
    labels = torch.randint(0, 1000, (batch,), generator=generator).to(device)
    # On a CPU, inductor would change timm's stem to channels last, which `_network` avoids.
    compiled = torch.compile(network, options={"layout_optimization": False} if device == "cpu" else None)
    run: Callable[[Tensor], Tensor] = compiled if configuration.compiled else network

    def loss() -> Tensor:
        with torch.autocast("cuda", torch.bfloat16) if device == "cuda" else nullcontext():
            return F.cross_entropy(run(images), labels)

    def step() -> None:
        loss().backward()
        network.zero_grad(set_to_none=True)
        if device == "cuda":
            torch.cuda.synchronize()

    step()
    activation_mb = _activation_mb(loss, network, images)
    if device != "cuda":
        return step, activation_mb, None
    torch.cuda.reset_peak_memory_stats()
    step()
    return step, activation_mb, (torch.cuda.max_memory_allocated() - before) / 1e6


def _network(name: str, configuration: StepConfiguration) -> nn.Module:
    torch.manual_seed(0)
    if configuration.collapse is None:
        import timm

        theirs = timm.create_model(name)
        if configuration.last:
            theirs = theirs.to(memory_format=torch.channels_last)
            # In channels last, PyTorch corrupts memory on CPUs: see `fastvit.model.layers.StridedPointwise`.
            theirs.stem[0].to(memory_format=torch.contiguous_format)
        return theirs
    model = create_model(name, overparameterized=configuration.branches)
    collapse_branches(model, configuration.collapse)
    return model.to(memory_format=torch.channels_last) if configuration.last else model


def _activation_mb(loss: Callable[[], Tensor], network: nn.Module, images: Tensor) -> float:
    """Return the megabytes that autograd keeps, without network and images; shared storage counts once."""
    known = {t.untyped_storage().data_ptr() for t in (*network.parameters(), *network.buffers(), images)}
    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in known:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        value = loss()  # keeps all storage alive, so that no address is used twice
        total = sum(kept.values())
    del value
    return total / 1e6


def step_table(results: Sequence[StepResult]) -> Table:
    """Return a table with one row per timed configuration."""
    header = (
        *("model", "configuration", "batch", "size", "latency, ms", "IQR, ms", "converged", "images/s"),
        *("speedup over timm", "activation memory, MB"),
    )
    rows = []
    for result in results:
        timing = result.timing
        if timing is None:
            continue
        rows.append(
            [
                result.variant,
                result.configuration.name,
                str(result.batch),
                str(result.size),
                *timing_cells(timing, 1),
                "yes" if timing.converged else "no",
                f"{1e3 * result.batch / timing.median:.1f}",
                ratio_cell(result.speedup),
                f"{result.activation_mb:.0f}",
                *([f"{result.peak:.0f}"] if result.peak is not None else []),
            ]
        )
    peak = any(result.peak is not None for result in results)
    return Table((*header, *(["peak memory, MB"] if peak else [])), rows)


def write_steps(folder: Path, results: Sequence[StepResult]) -> Path:
    """Write steps.csv, with failures, into a folder, which is created if needed; return its path."""
    path = folder / "steps.csv"
    write_csv(path, [_row(result) for result in results])
    return path


def _row(result: StepResult) -> dict[str, object]:
    return {
        "model": result.variant,
        "configuration": result.configuration.name,
        "batch": result.batch,
        "size": result.size,
        **timing_columns(result.timing),
        "speedup": result.speedup,
        "activation_mb": result.activation_mb,
        "peak_mb": result.peak,
        "failure": result.failure,
    }
