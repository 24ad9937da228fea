"""What a benchmark measured: as a table on the terminal, as CSV, and as one HTML file with plots."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path

from fastvit.bench.machine import Machine
from fastvit.bench.suite import Result
from fastvit.environment import environment
from fastvit.files import write_text
from fastvit.reports.metric_format import TOP1
from fastvit.reports.page import Section, Table, write_report
from fastvit.reports.plots import latency_bars, tradeoff

_HEADER = (
    *("network", "runtime", "batch", "size", "ms", "quartiles", "settled", "images/s", "against timm"),
    *("GMACs", "% of GEMM peak", "% of copy speed", "memory, MB", "top-1"),
)


def result_table(results: Sequence[Result], machine: Machine) -> Table:
    """A row a case that was timed; the columns that no row has something for are left out."""
    rows = [_cells(result, machine) for result in results if result.timing]
    kept = [column for column in range(len(_HEADER)) if any(row[column] for row in rows)]
    return Table([_HEADER[column] for column in kept], [[row[column] or "-" for column in kept] for row in rows])


def _cells(result: Result, machine: Machine) -> list[str]:
    case, timing = result.case, result.timing
    assert timing is not None
    peak = machine.gflops.get(case.way.precision)
    return [
        case.subject.name,
        case.way.name,
        str(case.batch),
        f"{case.size[0]}x{case.size[1]}",
        f"{timing.median:.2f}",
        f"{timing.low:.2f} to {timing.high:.2f}",
        "" if timing.settled else "no",
        f"{result.images_per_second:.1f}",
        f"{result.speedup:.2f}x" if result.speedup else "",
        f"{result.work.gmacs:.2f}",
        f"{100 * result.gflops / peak:.0f}" if peak else "",
        f"{100 * result.gbps / machine.copy_gbps:.0f}" if case.way.precision == "fp32" else "",
        f"{result.memory:.0f}" if result.memory else "",
        f"{result.top1:.1f}" if result.top1 else "",
    ]


def write_bench_report(
    folder: Path, results: Sequence[Result], machine: Machine, left_out: Sequence[tuple[str, str]]
) -> Path:
    """Write latency.csv and report.html into a folder; returns the path of the latter.

    Args:
        folder: is made.
        results: of `fastvit.bench.suite.bench`.
        machine: what it can do at most.
        left_out: what was not timed, and why.
    """
    write_text(folder / "latency.csv", _csv(results))
    peaks = ", ".join(f"{value:.0f} GFLOP/s in {name}" for name, value in machine.gflops.items())
    summary = (
        f"Medians, all of a batch size taking turns, {machine.threads} threads. This machine multiplies matrices at "
        f"{peaks} and copies {machine.copy_gbps:.1f} GB/s, measured in the same run."
    )
    sections = [Section("Latency", _TABLE, table=result_table(results, machine)), *_bars(results), *_tradeoffs(results)]
    if left_out:
        sections.append(Section("Not timed", table=Table(("what", "why"), left_out)))
    return write_report(folder / "report.html", "Latency", summary, sections)


_TABLE = (
    "Against timm: times as fast as timm's network of the same variant, fused as far as timm fuses it, eager. Settled: "
    "no, where the medians of the first and the last half of the rounds still differ by more than 3%. Copy speed: of "
    "what the layers would read and write if nothing stayed in a cache."
)


def _bars(results: Sequence[Result]) -> list[Section]:
    shapes = dict.fromkeys((r.case.subject.name, r.case.batch, r.case.size) for r in results if r.timing)
    sections = []
    for name, batch, size in shapes:
        of_this = [r for r in results if (r.case.subject.name, r.case.batch, r.case.size) == (name, batch, size)]
        timings = {r.case.way.name: r.timing for r in of_this if r.timing}
        if len(timings) > 1:
            title = f"{name}, batch {batch}, {size[0]}x{size[1]}"
            sections.append(Section(title, figure=latency_bars(timings, next(iter(timings)))))
    return sections


def _tradeoffs(results: Sequence[Result]) -> list[Section]:
    """One a way and batch, where two networks or more have a published accuracy at the size that they were timed at."""
    sections = []
    for way, batch in dict.fromkeys((r.case.way.name, r.case.batch) for r in results if r.timing):
        of_this = [r for r in results if (r.case.way.name, r.case.batch) == (way, batch) and r.timing and r.top1]
        points = {r.case.subject.name: (r.timing.median, (r.top1 or 0) / 100) for r in of_this if r.timing}
        if len(points) > 1:
            cost = f"milliseconds a call of {batch}, {way}"
            sources = ", ".join(sorted({(r.case.subject.published or (0, 0, ""))[2] for r in of_this}))
            text = f"Published ImageNet-1k top-1 ({sources}) at the size that was timed, which differs by network."
            sections.append(Section(f"Accuracy and latency: {way}, batch {batch}", text, tradeoff(points, cost, TOP1)))
    return sections


def _csv(results: Sequence[Result]) -> str:
    text = io.StringIO()
    names = "network,runtime,precision,batch,height,width,median_ms,low_ms,high_ms,rounds,settled,speedup,gmacs"
    writer = csv.writer(text)
    writer.writerow([*names.split(","), "megabytes_moved", "memory_mb", "top1", "failure", "processor"])
    measured = environment()
    for result in results:
        case, timing = result.case, result.timing
        timed = (timing.median, timing.low, timing.high, timing.rounds, timing.settled) if timing else ("",) * 5
        counted = (result.work.gmacs, result.work.megabytes) if timing else ("", "")
        writer.writerow(
            [
                *(case.subject.name, case.way.name, case.way.precision, case.batch, *case.size),
                *(*timed, result.speedup or "", *counted, result.memory or "", result.top1 or "", result.failure),
                measured.get("processor", ""),
            ]
        )
    return text.getvalue()
