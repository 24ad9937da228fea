"""`fastvit bench`: time models."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from fastvit.device import Device
from fastvit.errors import UserError
from fastvit.terminal import print_line, show, show_table


@dataclass(frozen=True)
class Preset:
    """A protocol of the paper (section 4 of arXiv 2303.14189), as far as this machine can follow it.

    Attributes:
        batch: images a call.
        runtime: ways, as in `fastvit.bench.ways.find_ways`.
        device: of PyTorch.
    """

    batch: str
    runtime: str
    device: Device


PRESETS = {
    "mobile": Preset("1", "auto", "cpu"),
    "gpu": Preset("8", "timm-fp16,fused-fp16,torch.compile-fp16,accelerated-fp16", "cuda"),
}


def bench(
    models: list[str] = [],  # noqa: B006, it is read only
    runtime: str | None = None,
    batch: str | None = None,
    size: str | None = None,
    peers: bool = False,
    preset: Literal["mobile", "gpu"] | None = None,
    rounds: int = 30,
    threads: int | None = None,
    memory: bool = False,
    device: Device | None = None,
    out: Path | None = None,
    minutes: float | None = None,
) -> int:
    """Time models side by side, in every runtime that is here, against timm's.

    Args:
        models: variants, names of peers, checkpoints, or a head on a variant such as mask_rcnn-sa12 and fpn-sa12
            (also faster_rcnn, retinanet, upernet); by default T8, SA12 and MA36. "gpu" in front of variants times them
            on an NVIDIA GPU in float16 every way that people run them, batch 1 and 128, and each kernel of ours;
            "train" times steps of training them instead.
        runtime: what to time them in, joined by commas: timm, train form, fused, onnxruntime, openvino, predictor, ...;
            auto for what is built within seconds, all for everything that is here.
        batch: images a call; several numbers joined by commas.
        size: of the images in pixels, numbers or HEIGHTxWIDTH joined by commas; by default each model's own.
        peers: time eight networks of timm too, each at the size that its accuracy is published for.
        preset: the paper's protocols: mobile (batch 1) or gpu (batch 8 in float16).
        rounds: timed calls of each; up to four times as many while the medians still move.
        threads: of every runtime; by default PyTorch's own number.
        memory: also measure the memory of a process that predicts with each artifact.
        device: where PyTorch runs; the runtimes run on the CPU.
        out: folder for latency.csv and report.html.
        minutes: of "gpu": after so many nothing new is begun, and the tables are printed.
    """
    if models[:1] == ["gpu"]:
        return _gpu(models[1:] or ["sa12", "t8", "ma36"], _numbers(batch or "1,128"), peers, rounds, minutes, out)
    if models[:1] == ["train"]:
        return _train(models[1:], runtime or "auto", batch, size, rounds, threads, device or "auto", out)
    chosen = PRESETS[preset] if preset else Preset("1", "auto", "auto")
    batches, sizes = _numbers(batch or chosen.batch), _sizes(size)

    from fastvit.bench.bench_report import result_table, write_bench_report
    from fastvit.bench.machine import measure_machine, torch_threads
    from fastvit.bench.peers import PEERS
    from fastvit.bench.subjects import find_subject
    from fastvit.bench.suite import bench as run
    from fastvit.bench.ways import find_ways
    from fastvit.device import pick_device

    where = pick_device(device or chosen.device)
    ways, missing = find_ways(runtime or chosen.runtime, where)
    names = dict.fromkeys([*(models or ["t8", "sa12", "ma36"]), *(PEERS if peers else [])])
    subjects = [find_subject(name) for name in names]
    with torch_threads(threads):
        results = run(subjects, ways, batches, sizes, where, rounds, memory)
        machine = measure_machine(where)
    failed = [(str(result.case), result.failure) for result in results if result.failure]
    left_out = [*missing.items(), *failed]
    if any(result.timing for result in results):
        table = result_table(results, machine)
        show_table(table.header, table.rows)
    for what, why in left_out:
        show(f"not timed: {what}: {why}", style="dim")
    if out:
        print_line(write_bench_report(out, results, machine, left_out))
    return 2 if failed else 0


def _gpu(
    models: list[str], batches: list[int], peers: bool, rounds: int, minutes: float | None, out: Path | None
) -> int:
    from fastvit.bench.gpu import measure_gpu
    from fastvit.bench.gpu_report import bars, exactness_table, kernel_table, network_table, write_gpu_report
    from fastvit.environment import environment

    run = measure_gpu(
        models,
        batches,
        peers,
        rounds,
        minutes,
        tick=lambda text: print_line(f"fastvit: {text}", file=sys.stderr),
        keep=lambda run: write_gpu_report(out, run) if out else None,
    )
    machine, found = run.machine, environment()
    roof = f"{machine.gflops['fp16'] / 1e3:.0f} TFLOP/s in float16, {machine.copy_gbps / 1e3:.2f} TB/s copied"
    versions = ", ".join(f"{name} {found[name]}" for name in ("torch", "timm", "commit") if name in found)
    report = write_gpu_report(out, run) if out else None
    for table in (kernel_table(run.kernels), exactness_table(run), bars(run), network_table(run)):
        if table.rows:
            show_table(table.header, table.rows)
    for result in run.results:
        if result.failure:
            show(f"not timed: {result.network}, batch {result.batch}, {result.way}: {result.failure}", style="dim")
    show(f"{found.get('GPU', '')}: {roof}; {versions}")
    if report:
        print_line(report)
    return 0 if all(result.timing for result in run.results) else 2


def _train(
    models: list[str],
    runtime: str,
    batch: str | None,
    size: str | None,
    rounds: int,
    threads: int | None,
    device: Device,
    out: Path | None,
) -> int:
    """Time steps of training, on defaults that fit the device."""
    from fastvit.bench.machine import torch_threads
    from fastvit.bench.train_steps import bench_steps, find_step_ways, step_table, write_steps
    from fastvit.device import pick_device

    where = pick_device(device)
    on_cpu = where == "cpu"
    ways = find_step_ways(runtime, where)
    sides = _sizes(size or ("64" if on_cpu else "256"))
    if not all(side and side[0] == side[1] for side in sides):
        raise UserError(f"training steps are timed on square images, got the size {size!r}")
    with torch_threads(threads):
        results = [
            result
            for name in models or ["t8" if on_cpu else "sa12"]
            for count in _numbers(batch or ("64" if on_cpu else "128"))
            for side in sides
            if side
            for result in bench_steps(name, ways, count, side[0], where, rounds)
        ]
    table = step_table(results)
    if out:
        print_line(write_steps(out, results))
    for result in results:
        if result.failure:
            show(f"not timed: {result.variant} in {result.way.name}: {result.failure}", style="dim")
    if table.rows:
        show_table(table.header, table.rows)
    return 2 if any(result.failure for result in results) else 0


def _numbers(text: str) -> list[int]:
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdigit() and int(part) for part in parts):
        raise UserError(f"batch must be numbers of images, joined by commas, got {text!r}")
    return [int(part) for part in parts]


def _sizes(text: str | None) -> list[tuple[int, int] | None]:
    from fastvit.arguments import parse_size

    if text is None:
        return [None]
    sizes = [parse_size(part.strip()) for part in text.split(",")]
    if not all(isinstance(size, tuple) and min(size) >= 32 for size in sizes):
        raise UserError(f"size must be numbers of pixels from 32 on, or HEIGHTxWIDTH, joined by commas, got {text!r}")
    return [size for size in sizes if isinstance(size, tuple)]
