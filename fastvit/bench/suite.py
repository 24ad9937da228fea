"""Benchmarks of networks, backends and shapes in one run."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from fastvit.bench.backends import BACKENDS, Backend, artifact_path, call_of, reference_of
from fastvit.bench.complexity import Work
from fastvit.bench.harness import refuse_none, side_by_side
from fastvit.bench.memory import peak_memory
from fastvit.bench.models import BenchModel, fastvit_model
from fastvit.console import new_progress
from fastvit.model.task_model import TaskModel
from fastvit.timing import PATIENCE, Timing


@dataclass(frozen=True)
class Case:
    """A network in a backend with one input shape.

    Attributes:
        bench_model: network to time.
        backend: backend that runs it.
        batch: batch size.
        size: height and width of the images, in pixels.
    """

    bench_model: BenchModel
    backend: Backend
    batch: int
    size: tuple[int, int]

    def __str__(self) -> str:
        return f"{self.bench_model.name} in {self.backend.name}, batch {self.batch}, {self.size[0]}x{self.size[1]}"


@dataclass(frozen=True)
class Result:
    """Measurement of a case.

    Attributes:
        case: case that was timed.
        work: arithmetic and memory traffic of one image.
        timing: time of a call; None if it failed.
        failure: reason of the failure, in one line.
        speedup: speedup over the reference of the same network and shape in the same run; None without a reference.
        memory: peak memory of a process that predicts, in megabytes (1e6 bytes); None if it was not measured.
    """

    case: Case
    work: Work
    timing: Timing | None = None
    failure: str = ""
    speedup: float | None = None
    memory: float | None = None

    @property
    def top1(self) -> float | None:
        """Published ImageNet-1k top-1 accuracy at this image size, in percent."""
        size, top1, _ = self.case.bench_model.published or (0, None, "")
        return top1 if self.case.size == (size, size) else None

    @property
    def gflops(self) -> float:
        """Arithmetic rate in 1e9 operations per second; a multiply-add is two operations."""
        return 2 * self.work.gmacs / self._seconds_an_image

    @property
    def gbps(self) -> float:
        """Memory traffic in 1e9 bytes per second, as `fastvit.bench.complexity.Work` counts it."""
        return self.work.megabytes / 1e3 / self._seconds_an_image

    @property
    def images_per_second(self) -> float:
        """Throughput in images per second."""
        return 1 / self._seconds_an_image

    @property
    def _seconds_an_image(self) -> float:
        return self.timing.median / 1e3 / self.case.batch if self.timing else float("nan")


def bench(
    bench_models: Sequence[BenchModel],
    backends: Sequence[Backend],
    batches: Sequence[int] = (1,),
    sizes: Sequence[tuple[int, int] | None] = (None,),
    device: str = "cpu",
    rounds: int = 30,
    memory: bool = False,
) -> list[Result]:
    """Time all cases; rounds are added until the medians converge.

    Cases of the same batch size and image size take turns. Every runtime gets as many threads as PyTorch has
    (`fastvit.bench.machine.torch_threads`).

    Args:
        bench_models: networks to time.
        backends: backends that run each of them.
        batches: batch sizes.
        sizes: heights and widths of the images, in pixels; None for the default of each network.
        device: device of PyTorch.
        rounds: number of timed calls of each case, at first.
        memory: also measure the memory of a process that predicts, which takes seconds per artifact.

    Returns:
        The results, in the order of batches, sizes, models and backends, without backends that do not run a network.

    Raises:
        UserError: rounds or a batch size is below 1.
    """
    refuse_none(rounds, batches)
    results = []
    with tempfile.TemporaryDirectory() as name, new_progress() as progress:
        for batch in batches:
            for size in sizes:
                cases = [Case(s, backend, batch, size or s.size) for s in bench_models for backend in backends]
                makers = {
                    c: partial(call_of, c.bench_model, c.backend, batch, c.size, Path(name), device) for c in cases
                }
                timings, failures = side_by_side(makers, rounds, progress, patience=PATIENCE)
                results += _results(cases, timings, failures, Path(name) if memory else None)
    return results


def bench_model(model: TaskModel, compiled: bool, device: str = "cpu") -> dict[str, Timing]:
    """Time one model at batch size 1 and its own image size, by backend: train form, fused, and ONNX Runtime on a CPU.

    Args:
        model: model in any form; without its branches the train form is not timed.
        compiled: also time torch.compile, which takes a minute to build.
        device: device of PyTorch.
    """
    names = "train form", "fused", *(["torch.compile"] if compiled else []), "onnxruntime"
    backends = [BACKENDS[name] for name in names if BACKENDS[name].missing(device) is None]
    return {r.case.backend.name: r.timing for r in bench([fastvit_model(model)], backends, device=device) if r.timing}


def bench_models(models: Mapping[str, TaskModel], device: str = "cpu", rounds: int = 30) -> dict[str, Timing]:
    """Time several fused models in PyTorch, at batch size 1 and their own image size, by name.

    Args:
        models: models in any form, by name.
        device: device of PyTorch.
        rounds: number of timed calls of each model, at first.
    """
    bench_models = [fastvit_model(model, name) for name, model in models.items()]
    results = bench(bench_models, [BACKENDS["fused"]], device=device, rounds=rounds)
    return {r.case.bench_model.name: r.timing for r in results if r.timing}


def _results(
    cases: Sequence[Case], timings: Mapping[Case, Timing], failures: Mapping[Case, str], folder: Path | None
) -> list[Result]:
    results = []
    for case in cases:
        if case in failures:
            results.append(Result(case, Work(0, 0), failure=failures[case]))
        elif case in timings:
            reference = reference_of({c.backend.name: t for c, t in timings.items() if _comparable(c, case)})
            speedup = reference.median / timings[case].median if reference else None
            memory = _memory(case, folder) if folder else None
            results.append(Result(case, case.bench_model.work(case.size), timings[case], "", speedup, memory))
    return results


def _comparable(one: Case, other: Case) -> bool:
    return (one.bench_model, one.batch, one.size) == (other.bench_model, other.batch, other.size)


def _memory(case: Case, folder: Path) -> float | None:
    if case.bench_model.model is None or case.backend.target is None:
        return None
    return peak_memory(
        artifact_path(folder, case.bench_model, case.backend, case.batch, case.size), case.backend.runtime
    )
