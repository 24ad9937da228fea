"""`fastvit bench models`: measure the latency of models in all backends."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from fastvit.arguments import refuse_given
from fastvit.cli.bench.lists import parse_numbers, parse_sizes
from fastvit.console import print_line, print_styled, print_table
from fastvit.device import Device


@dataclass(frozen=True)
class Preset:
    """Measurement protocol of the paper (section 4 of arXiv 2303.14189), as far as this machine supports it.

    Attributes:
        batch: batch size.
        backends: names of backends, as in `fastvit.bench.backends.find_backends`.
        device: device that PyTorch runs on.
    """

    batch: str
    backends: str
    device: Device


PRESETS = {
    "mobile": Preset("1", "auto", "cpu"),
    "gpu": Preset("8", "timm-fp16,fused-fp16,torch.compile-fp16,accelerated-fp16", "cuda"),
}


def bench_models(
    models: list[str] = [],  # noqa: B006, it is read only
    backends: str | None = None,
    batch: str | None = None,
    size: str | None = None,
    peers: bool = False,
    preset: Literal["mobile", "gpu"] | None = None,
    rounds: int = 30,
    threads: int | None = None,
    memory: bool = False,
    device: Device | None = None,
    out: Path | None = None,
) -> int:
    """Measure the latency of models in all available backends, next to timm's implementation.

    The table compares floating-point operations per second with those of a large matrix multiplication (% of GEMM
    peak), and the bytes per second that the layers read and write if nothing is cached with a memory copy (% of copy
    speed).

    Args:
        models: variants, networks of timm that --peers measures, checkpoints, or a head on a variant, such as
            mask_rcnn-sa12 and fpn-sa12 (also faster_rcnn, retinanet, upernet); by default T8, SA12 and MA36.
        backends: backends, separated by commas: timm, train form, fused, onnxruntime, openvino, predictor, ...; auto
            for those that are built within seconds, all for all that are available.
        batch: batch size; several numbers separated by commas; by default 1, or that of --preset.
        size: image sizes in pixels, numbers or HEIGHTxWIDTH, separated by commas; by default each model's own.
        peers: also time eight networks of timm, each at the image size of its published accuracy.
        preset: protocol of the paper: mobile (batch size 1) or gpu (batch size 8 in float16).
        rounds: number of timed calls of each; up to four times as many until the medians have converged.
        threads: number of CPU threads of each runtime; by default that of PyTorch.
        memory: also measure the memory of a process that predicts with each artifact.
        device: device that PyTorch runs on; the other runtimes run on the CPU.
        out: folder for latency.csv and report.html.
    """
    chosen = PRESETS[preset] if preset else Preset("1", "auto", "auto")
    batches, sizes = parse_numbers(batch or chosen.batch), parse_sizes(size) if size else [None]

    from fastvit.bench.backends import find_backends
    from fastvit.bench.bench_report import explanation, result_table, write_bench_report
    from fastvit.bench.machine import measure_machine, torch_threads
    from fastvit.bench.models import find_model
    from fastvit.bench.peers import PEERS
    from fastvit.bench.suite import bench as run
    from fastvit.device import pick_device

    where = pick_device(device or chosen.device)
    found, missing = find_backends(backends or chosen.backends, where)
    if not any(backend.target for backend in found):
        refuse_given(
            f"is measured for artifacts, but {', '.join(backend.name for backend in found)} runs none", memory=memory
        )
    names = dict.fromkeys([*(models or ["t8", "sa12", "ma36"]), *(PEERS if peers else [])])
    bench_models = [find_model(name) for name in names]
    with torch_threads(threads):
        results = run(bench_models, found, batches, sizes, where, rounds, memory)
        machine = measure_machine(where)
    failed = [(str(result.case), result.failure) for result in results if result.failure]
    left_out = [*missing.items(), *failed]
    if any(result.timing for result in results):
        table = result_table(results, machine)
        print_table(table.header, table.rows)
        if note := explanation(table):
            print_styled(note, style="dim")
    for what, why in left_out:
        print_styled(f"not timed: {what}: {why}", style="dim")
    if out:
        print_line(write_bench_report(out, results, machine, left_out))
    return 2 if failed else 0
