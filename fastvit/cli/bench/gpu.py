"""`fastvit bench gpu`: measure the latency of models and kernels on an NVIDIA GPU."""

from __future__ import annotations

import sys
from pathlib import Path

from fastvit.cli.bench.lists import parse_numbers
from fastvit.console import print_line, print_styled, print_table


def bench_gpu(
    models: list[str] = [],  # noqa: B006, it is read only
    batch: str = "1,128",
    peers: bool = False,
    rounds: int = 30,
    minutes: float | None = None,
    out: Path | None = None,
) -> int:
    """Measure latency on an NVIDIA GPU in float16: variants in all backends, and each kernel of fastvit.

    Args:
        models: names of variants; by default SA12, T8 and MA36.
        batch: batch size; several numbers separated by commas.
        peers: also time eight networks of timm, each at the image size of its published accuracy.
        rounds: number of timed calls of each; up to four times as many until the medians have converged.
        minutes: stop starting new measurements after this many minutes, and print the tables; by default no limit.
        out: folder for the CSV files and report.html.
    """
    from fastvit.bench.gpu import measure_gpu
    from fastvit.bench.gpu_report import bars, exactness_table, kernel_table, network_table, write_gpu_report
    from fastvit.environment import environment

    run = measure_gpu(
        models or ["sa12", "t8", "ma36"],
        parse_numbers(batch),
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
            print_table(table.header, table.rows)
    for result in run.results:
        if result.failure:
            print_styled(
                f"not timed: {result.model}, batch {result.batch}, {result.backend}: {result.failure}", style="dim"
            )
    print_styled(f"{found.get('GPU', '')}: {roof}; {versions}")
    if report:
        print_line(report)
    return 0 if all(result.timing for result in run.results) else 2
