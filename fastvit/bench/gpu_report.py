"""Results of `fastvit.bench.gpu`: tables for the terminal, CSV files, and an HTML page with plots."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from fastvit.bench.gpu import ACCELERATED, UNFUSED, GpuResult, GpuRun
from fastvit.bench.gpu_kernels import KernelRow
from fastvit.bench.report import accuracy_section, ratio_cell, timing_cells, timing_columns, write_files
from fastvit.reports.page import Section, Table


def network_table(run: GpuRun) -> Table:
    """Return a table with one row per timed network, backend and batch size."""
    header = (
        *("model", "backend", "batch", "latency, ms", "IQR, ms", "images/s"),
        *("speedup over torch.compile", "memory, MB", "top-1"),
    )
    rows = []
    for result in run.results:
        timing, compiled = result.timing, run.compiled(result)
        if timing is None:
            continue
        rows.append(
            [
                result.model,
                result.backend,
                str(result.batch),
                *timing_cells(timing, 3),
                f"{1e3 * result.batch / timing.median:.0f}",
                ratio_cell(compiled and compiled / timing.median),
                f"{result.memory:.0f}" if result.memory is not None else "-",
                f"{result.top1:.1f}" if result.top1 else "-",
            ]
        )
    return Table(header, rows)


def kernel_table(rows: Sequence[KernelRow]) -> Table:
    """Return a table with one row per kind of step, with the time of all steps of its kind."""
    header = (
        *("model", "batch", "step", "kernel", "count", "time, ms", "PyTorch, ms", "roofline, ms"),
        *("time / roofline", "total, ms"),
    )
    cells = [
        [
            row.model,
            str(row.batch),
            row.step,
            row.choice,
            str(row.count),
            _ms(row.ms),
            _ms(row.torch_ms),
            _ms(row.floor_ms),
            f"{row.ms / row.floor_ms:.1f}x" if row.ms and row.floor_ms else "-",
            _ms(row.ms and row.count * row.ms),
        ]
        for row in rows
    ]
    return Table(header, cells)


def exactness_table(run: GpuRun) -> Table:
    """Return a table of the differences of the logits from float64."""
    header = "model", "accelerated", "PyTorch, float16", "ratio (limit 1.5)"
    rows = [
        [e.model, f"{e.accelerated:.2e}", f"{e.torch:.2e}", f"{e.accelerated / e.torch:.2f}"] for e in run.exactness
    ]
    return Table(header, rows)


def bars(run: GpuRun) -> Table:
    """Return a table of performance targets and measured values, by network and batch size."""
    header = "model", "batch", "target", "measured", "met"
    rows = []
    by_backend = {(r.model, r.batch, r.backend): r for r in run.results if r.timing}
    for (name, batch, backend), result in by_backend.items():
        compiled = run.compiled(result)
        if backend != ACCELERATED or result.timing is None:
            continue
        if compiled:
            speed = compiled / result.timing.median
            bar, least = ("2.0x torch.compile", 2.0) if batch >= 8 else ("1/0.6x torch.compile", 1 / 0.6)
            rows.append([name, str(batch), bar, f"{speed:.2f}x", _held(speed >= least)])
        plain = by_backend.get((name, batch, UNFUSED))
        if plain and plain.timing and batch >= 8:
            speed = plain.timing.median / result.timing.median
            rows.append([name, str(batch), "5x unfused", f"{speed:.2f}x", _held(speed >= 5)])
        others = [
            r for r in by_backend.values() if (r.model, r.batch) == (name, batch) and r.backend.startswith("timm")
        ]
        memory = [other.memory for other in others if other.memory]
        if memory and result.memory is not None:
            share = result.memory / min(memory)
            rows.append([name, str(batch), "memory at most timm's", f"{share:.2f}x", _held(share <= 1)])
    return Table(header, rows)


def _held(true: bool) -> str:
    return "yes" if true else "NO"


def _ms(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def write_gpu_report(folder: Path, run: GpuRun) -> Path:
    """Write networks.csv, kernels.csv and report.html into a folder; return the path of the latter."""
    machine = run.machine
    summary = (
        "Median latency by CUDA events, backends of a model interleaved, input images rotated to miss the L2 cache. "
        f"Measured in the same run: matrix multiplication at {machine.gflops['fp16'] / 1e3:.0f} TFLOP/s in float16, "
        f"memory copy at {machine.copy_gbps / 1e3:.2f} TB/s."
    )
    sections = [
        Section("Models", table=network_table(run)),
        Section("Performance targets", table=bars(run)),
        Section("Numerical accuracy", "Relative difference of the logits from float64.", table=exactness_table(run)),
        *(_plots(run)),
        Section(
            "Kernels",
            "Time of each kind of step, compared with PyTorch and with the roofline.",
            table=kernel_table(run.kernels),
        ),
    ]
    failed = [(f"{r.model}, batch {r.batch}, {r.backend}", r.failure) for r in run.results if r.failure]
    tables = {"networks.csv": [_row(r) for r in run.results], "kernels.csv": [asdict(row) for row in run.kernels]}
    return write_files(folder, "GPU benchmark", summary, sections, failed, tables)


def _plots(run: GpuRun) -> list[Section]:
    """Return plots of published accuracy against latency by batch size, peers by their faster backend."""
    sections = []
    for batch in dict.fromkeys(r.batch for r in run.results):
        points: dict[str, tuple[float, float]] = {}
        ours = {r.model for r in run.results if r.backend == ACCELERATED}
        for result in run.results:
            shown = result.backend == ACCELERATED or result.model not in ours
            if result.batch != batch or not shown or result.timing is None or result.top1 is None:
                continue
            ms = min(result.timing.median, points.get(result.model, (float("inf"), 0.0))[0])
            points[result.model] = ms, result.top1 / 100
        cost = f"latency, ms (float16, batch size {batch})"
        sections += accuracy_section(f"Accuracy vs. latency, batch size {batch}", points, cost)
    return sections


def _row(result: GpuResult) -> dict[str, object]:
    rest = {name: value for name, value in asdict(result).items() if name != "timing"}
    return {**rest, **timing_columns(result.timing)}
