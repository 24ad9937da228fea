"""`fastvit bench train`: measure the time of training steps."""

from __future__ import annotations

from pathlib import Path

from fastvit.cli.bench.lists import parse_numbers, parse_sizes
from fastvit.console import print_line, print_styled, print_table
from fastvit.device import Device
from fastvit.errors import UserError


def bench_train(
    models: list[str] = [],  # noqa: B006, it is read only
    configurations: str = "auto",
    batch: str | None = None,
    size: str | None = None,
    rounds: int = 30,
    threads: int | None = None,
    device: Device = "auto",
    out: Path | None = None,
) -> int:
    """Measure the time of training steps on random images in several configurations, next to timm's model.

    Args:
        models: names of variants; by default T8 on a CPU, SA12 on a GPU.
        configurations: configurations of a step, separated by commas: timm, timm-channels-last, plain, collapsed, ...;
            all for all of them, auto for all on a GPU, and on a CPU for those without compilation.
        batch: images per step; several numbers separated by commas; by default 64 on a CPU, 128 on a GPU.
        size: side of the square images in pixels; several numbers separated by commas; by default 64 on a CPU, 256 on
            a GPU.
        rounds: number of timed steps of each; up to four times as many until the medians have converged.
        threads: number of CPU threads of PyTorch; by default its own choice.
        device: device that PyTorch runs on.
        out: folder for steps.csv.

    Raises:
        UserError: a model, configuration or device is not available, or a size is not square.
    """
    from fastvit.bench.machine import torch_threads
    from fastvit.bench.train_steps import bench_steps, find_step_configurations, step_table, write_steps
    from fastvit.device import pick_device

    where = pick_device(device)
    on_cpu = where == "cpu"
    chosen = find_step_configurations(configurations, where)
    sides = parse_sizes(size or ("64" if on_cpu else "256"))
    if not all(height == width for height, width in sides):
        raise UserError(f"size must be a number of pixels: training steps are timed on square images, got {size!r}")
    with torch_threads(threads):
        results = [
            result
            for name in models or ["t8" if on_cpu else "sa12"]
            for count in parse_numbers(batch or ("64" if on_cpu else "128"))
            for side, _ in sides
            for result in bench_steps(name, chosen, count, side, where, rounds)
        ]
    table = step_table(results)
    if out:
        print_line(write_steps(out, results))
    for result in results:
        if result.failure:
            print_styled(f"not timed: {result.variant} in {result.configuration.name}: {result.failure}", style="dim")
    if table.rows:
        print_table(table.header, table.rows)
    return 2 if any(result.failure for result in results) else 0
