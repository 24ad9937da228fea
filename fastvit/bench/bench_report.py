"""Results of a benchmark: a table on the terminal, CSV, and an HTML page with plots."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from fastvit.bench.machine import Machine
from fastvit.bench.report import accuracy_section, timing_cells, timing_columns, write_files
from fastvit.bench.suite import Result
from fastvit.environment import environment
from fastvit.reports.page import Section, Table
from fastvit.reports.plots import latency_bars

_GEMM, _COPY = "% of GEMM peak", "% of copy speed"
_HEADER = (
    *("model", "backend", "batch", "size", "latency, ms", "IQR, ms", "converged", "images/s", "speedup over timm"),
    *("GMACs", _GEMM, _COPY, "memory, MB", "top-1"),
)


def result_table(results: Sequence[Result], machine: Machine) -> Table:
    """Return a row for each timed case, without columns that are empty in all rows."""
    rows = [_cells(result, machine) for result in results if result.timing]
    kept = [column for column in range(len(_HEADER)) if any(row[column] for row in rows)]
    return Table([_HEADER[column] for column in kept], [[row[column] or "-" for column in kept] for row in rows])


def _cells(result: Result, machine: Machine) -> list[str]:
    case, timing = result.case, result.timing
    assert timing is not None
    peak = machine.gflops.get(case.backend.precision)
    return [
        case.bench_model.name,
        case.backend.name,
        str(case.batch),
        f"{case.size[0]}x{case.size[1]}",
        *timing_cells(timing, 2),
        "" if timing.converged else "no",
        f"{result.images_per_second:.1f}",
        f"{result.speedup:.2f}x" if result.speedup else "",
        f"{result.work.gmacs:.2f}",
        f"{100 * result.gflops / peak:.0f}" if peak else "",
        f"{100 * result.gbps / machine.copy_gbps:.0f}" if case.backend.precision == "fp32" else "",
        f"{result.memory:.0f}" if result.memory else "",
        f"{result.top1:.1f}" if result.top1 else "",
    ]


def write_bench_report(
    folder: Path, results: Sequence[Result], machine: Machine, left_out: Sequence[tuple[str, str]]
) -> Path:
    """Write latency.csv and report.html into a folder; return the path of the latter.

    Args:
        folder: folder to write to; it is created if needed.
        results: results of `fastvit.bench.suite.bench`.
        machine: peak performance of the machine.
        left_out: names and reasons of what was not timed.
    """
    peaks = ", ".join(f"{value:.0f} GFLOP/s in {name}" for name, value in machine.gflops.items())
    summary = (
        f"Median latency, calls of one batch size interleaved; threads: {machine.threads}. Measured in the same run: "
        f"matrix multiplication at {peaks}, memory copy at {machine.copy_gbps:.1f} GB/s."
    )
    sections = [Section("Latency", _TABLE, table=result_table(results, machine)), *_bars(results), *_tradeoffs(results)]
    return write_files(folder, "Benchmark", summary, sections, left_out, {"latency.csv": _rows(results)})


_SHARES = {
    _GEMM: "floating-point operations per second, compared with those of a large matrix multiplication",
    _COPY: "bytes per second that the layers read and write if nothing is cached, compared with a memory copy",
}
_TABLE = (
    "Speedup over timm: compared with timm's model of the same variant, fused as far as timm fuses it, in eager mode. "
    "Converged: no, if the medians of the first and the second half of the rounds differ by more than 3%. "
    + "".join(f"{column}: {text}. " for column, text in _SHARES.items())
)


def explanation(table: Table) -> str:
    """Return a line that explains the columns with shares of the machine's speed, those that a table has."""
    return "; ".join(f"{column}: {text}" for column, text in _SHARES.items() if column in table.header)


def _bars(results: Sequence[Result]) -> list[Section]:
    shapes = dict.fromkeys((r.case.bench_model.name, r.case.batch, r.case.size) for r in results if r.timing)
    sections = []
    for name, batch, size in shapes:
        of_this = [r for r in results if (r.case.bench_model.name, r.case.batch, r.case.size) == (name, batch, size)]
        timings = {r.case.backend.name: r.timing for r in of_this if r.timing}
        if len(timings) > 1:
            title = f"{name}, batch size {batch}, {size[0]}x{size[1]}"
            sections.append(Section(title, plots=[latency_bars(timings, next(iter(timings)))]))
    return sections


def _tradeoffs(results: Sequence[Result]) -> list[Section]:
    """One section per backend and batch, if two networks or more have a published accuracy at the timed size."""
    sections = []
    for backend, batch in dict.fromkeys((r.case.backend.name, r.case.batch) for r in results if r.timing):
        of_this = [
            r for r in results if (r.case.backend.name, r.case.batch) == (backend, batch) and r.timing and r.top1
        ]
        points = {r.case.bench_model.name: (r.timing.median, (r.top1 or 0) / 100) for r in of_this if r.timing}
        sources = ", ".join(sorted({(r.case.bench_model.published or (0, 0, ""))[2] for r in of_this}))
        cost = f"latency, ms ({backend}, batch size {batch})"
        sections += accuracy_section(f"Accuracy vs. latency: {backend}, batch size {batch}", points, cost, sources)
    return sections


def _rows(results: Sequence[Result]) -> list[dict[str, object]]:
    processor = environment().get("processor", "")
    return [
        {
            "model": result.case.bench_model.name,
            "backend": result.case.backend.name,
            "precision": result.case.backend.precision,
            "batch": result.case.batch,
            "height": result.case.size[0],
            "width": result.case.size[1],
            **timing_columns(result.timing),
            "speedup": result.speedup,
            "gmacs": result.work.gmacs if result.timing else "",
            "megabytes_moved": result.work.megabytes if result.timing else "",
            "memory_mb": result.memory,
            "top1": result.top1,
            "failure": result.failure,
            "processor": processor,
        }
        for result in results
    ]
