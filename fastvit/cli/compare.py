"""`fastvit compare`: compare runs side by side."""

from __future__ import annotations

from pathlib import Path

from fastvit.arguments import refuse_given
from fastvit.console import print_line, print_table
from fastvit.device import Device


def compare(
    runs: list[str],
    out: Path = Path("compare.html"),
    no_latency: bool = False,
    rounds: int | None = None,
    device: Device | None = None,
) -> None:
    """Compare runs: settings, accuracy, robustness, size and latency, in one HTML file with plots.

    Args:
        runs: folders of runs, or checkpoints.
        out: HTML file to write.
        no_latency: do not measure latency.
        rounds: number of timed calls of each model; by default 30; up to four times as many until the medians
            converge.
        device: device to time the models on; by default a GPU if one is available.
    """
    if no_latency:
        refuse_given("is for timing the models, which --no-latency switches off", rounds=rounds, device=device)

    from fastvit.compare.comparison import collect, measure_latency, result_table, settings_table
    from fastvit.compare.comparison_report import write_comparison
    from fastvit.device import pick_device

    entries = collect(runs)
    where = pick_device(device or "auto")
    timings = {} if no_latency else measure_latency(entries, where, 30 if rounds is None else rounds)
    for rows in (result_table(entries, timings), settings_table(entries)):
        if rows.rows:
            print_table(rows.header, rows.rows)
    print_line(write_comparison(out, entries, timings, where))
