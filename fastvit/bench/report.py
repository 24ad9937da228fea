"""Parts that the reports of all benchmarks share: cells, columns, sections and files."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

from fastvit.files import write_text
from fastvit.reports.metric_format import TOP1
from fastvit.reports.page import Section, Table, write_report
from fastvit.reports.plots import tradeoff
from fastvit.timing import Timing


def timing_cells(timing: Timing, digits: int) -> list[str]:
    """Return the median and the quartiles in milliseconds, for a table."""
    return [f"{timing.median:.{digits}f}", f"{timing.low:.{digits}f} to {timing.high:.{digits}f}"]


def ratio_cell(ratio: float | None) -> str:
    """Return a speedup for a table."""
    return f"{ratio:.2f}x" if ratio else "-"


def timing_columns(timing: Timing | None) -> dict[str, object]:
    """Return the columns of a timing in a CSV file, empty without a timing."""
    names = "median_ms", "low_ms", "high_ms", "rounds", "converged"
    values = (timing.median, timing.low, timing.high, timing.rounds, timing.converged) if timing else ("",) * len(names)
    return dict(zip(names, values, strict=True))


def accuracy_section(
    title: str, points: Mapping[str, tuple[float, float]], cost: str, source: str = ""
) -> list[Section]:
    """Return a section with accuracy against latency, if at least two networks have both; else none.

    Args:
        title: title of the section.
        points: milliseconds and top-1 in [0, 1], by network.
        cost: label of the latency axis.
        source: source of the accuracy.
    """
    if len(points) < 2:
        return []
    published = f"Published ImageNet-1k top-1 accuracy{f' ({source})' if source else ''}"
    text = f"{published} at the timed image size, which differs between models. The dashed line is the Pareto front."
    return [Section(title, text, [tradeoff(points, cost, TOP1)])]


def write_files(
    folder: Path,
    title: str,
    summary: str,
    sections: Sequence[Section],
    left_out: Sequence[tuple[str, str]],
    tables: Mapping[str, Sequence[Mapping[str, object]]],
) -> Path:
    """Write CSV files and report.html into a folder, which is created if needed; return the path of the latter.

    Args:
        folder: folder to write to.
        title: title of the report.
        summary: description of the measurement.
        sections: sections of the report, except the last.
        left_out: names and reasons of what was not timed, for the last section.
        tables: rows of each CSV file, by file name.
    """
    for name, rows in tables.items():
        write_csv(folder / name, rows)
    last = [Section("Not measured", table=Table(("configuration", "reason"), left_out))] if left_out else []
    return write_report(folder / "report.html", title, summary, [*sections, *last])


def write_csv(path: Path, rows: Sequence[Mapping[str, object]]) -> None:
    """Write rows into a CSV file, whose folder is created if needed; missing cells stay empty."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(dict.fromkeys(name for row in rows for name in row)), restval="")
    writer.writeheader()
    writer.writerows(rows)
    write_text(path, text.getvalue())
