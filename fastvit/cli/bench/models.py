"""`fastvit bench models`: time models in every backend."""

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
    """A protocol of the paper (section 4 of arXiv 2303.14189), as far as this machine can follow it.

    Attributes:
        batch: images a call.
        backends: names, as in `fastvit.bench.backends.find_backends`.
        device: of PyTorch.
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
    """Time models side by side in every available backend, against timm's.

    Args:
        models: variants, names of peers, checkpoints, or a head on a variant such as mask_rcnn-sa12 and fpn-sa12
            (also faster_rcnn, retinanet, upernet); by default T8, SA12 and MA36.
        backends: what runs the models, joined by commas: timm, train form, fused, onnxruntime, openvino, predictor,
            ...; auto for what is built within seconds, all for everything that is here.
        batch: images a call; several numbers joined by commas.
        size: of the images in pixels, numbers or HEIGHTxWIDTH joined by commas; by default each model's own.
        peers: time eight networks of timm too, each at the size that its accuracy is published for.
        preset: the paper's protocols: mobile (batch 1) or gpu (batch 8 in float16).
        rounds: timed calls of each; up to four times as many while the medians still move.
        threads: of every runtime; by default PyTorch's own number.
        memory: also measure the memory of a process that predicts with each artifact.
        device: where PyTorch runs; the runtimes run on the CPU.
        out: folder for latency.csv and report.html.
    """
    chosen = PRESETS[preset] if preset else Preset("1", "auto", "auto")
    batches, sizes = parse_numbers(batch or chosen.batch), parse_sizes(size) if size else [None]

    from fastvit.bench.backends import find_backends
    from fastvit.bench.bench_report import result_table, write_bench_report
    from fastvit.bench.machine import measure_machine, torch_threads
    from fastvit.bench.models import find_model
    from fastvit.bench.peers import PEERS
    from fastvit.bench.suite import bench as run
    from fastvit.device import pick_device

    where = pick_device(device or chosen.device)
    found, missing = find_backends(backends or chosen.backends, where)
    if not any(backend.target for backend in found):
        refuse_given(
            f"is measured of artifacts, and {', '.join(backend.name for backend in found)} runs none", memory=memory
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
    for what, why in left_out:
        print_styled(f"not timed: {what}: {why}", style="dim")
    if out:
        print_line(write_bench_report(out, results, machine, left_out))
    return 2 if failed else 0
