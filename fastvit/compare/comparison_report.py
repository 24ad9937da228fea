"""Runs side by side as a page."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure

from fastvit.compare.comparison import Entry, Timings, result_table, settings_table
from fastvit.reports.page import Section, write_report
from fastvit.reports.plots import overlaid_curves, tradeoff

FRONT = "The dashed line joins the runs that no other one beats in both; those beside it are red."


def write_comparison(path: Path, entries: Sequence[Entry], timings: Timings, device: str) -> Path:
    """Write the page, with the sections that the runs have something for.

    Args:
        path: HTML file to write.
        entries: at least one.
        timings: of the entries by name; none where they were not timed.
        device: where they were timed.
    """
    return write_report(
        path,
        title=f"{len(entries)} runs side by side" if len(entries) > 1 else entries[0].name,
        summary=_summary(entries, timings),
        sections=[
            Section("Results", _RESULTS_TEXT, table=result_table(entries, timings)),
            *_settings_sections(entries),
            *_latency_sections(entries, timings, device),
            *_parameter_sections(entries),
            *_curve_sections(entries),
        ],
    )


_RESULTS_TEXT = (
    "Accuracy and loss are those of the best epoch on each run's own validation images: they can be compared where the "
    "data are the same. Parameters in train form and fused; multiply-accumulates of one image, fused."
)


def _summary(entries: Sequence[Entry], timings: Timings) -> str:
    parts = []
    if scored := [(entry.score, entry.name) for entry in entries if entry.score is not None]:
        metric = entries[0].spec.headline_metric
        score, name = min(scored) if metric.lower_is_better else max(scored)
        parts.append(f"{name} is the most accurate, with {metric.text(score)} {metric.label}")
    if timings:
        fastest = min(timings, key=lambda name: timings[name].median)
        parts.append(f"{fastest} the fastest, with {timings[fastest].median:.2f} ms")
    return "; ".join(parts) + "." if parts else "No run says its accuracy."


def _settings_sections(entries: Sequence[Entry]) -> list[Section]:
    table = settings_table(entries)
    return [Section("Settings that differ", table=table)] if table.rows else []


def _latency_sections(entries: Sequence[Entry], timings: Timings, device: str) -> list[Section]:
    points = {e.name: (timings[e.name].median, e.score) for e in entries if e.name in timings and e.score is not None}
    if not points:
        return []
    rounds = next(iter(timings.values())).rounds
    text = f"Fused models in PyTorch on {device}, batch 1, median of {rounds} calls, taking turns in one run. {FRONT}"
    return [Section("Accuracy against latency", text, _tradeoff(entries, points, "milliseconds an image"))]


def _parameter_sections(entries: Sequence[Entry]) -> list[Section]:
    points = {e.name: (e.complexity.params_fused / 1e6, e.score) for e in entries if e.score is not None}
    if not points:
        return []
    return [Section("Accuracy against parameters", FRONT, _tradeoff(entries, points, "million parameters, fused"))]


def _tradeoff(entries: Sequence[Entry], points: dict[str, tuple[float, float]], cost: str) -> Figure:
    return tradeoff(points, cost, entries[0].spec.headline_metric)


def _curve_sections(entries: Sequence[Entry]) -> list[Section]:
    histories = {e.name: e.history.series for e in entries if e.history.series}
    spec = entries[0].spec
    figure = overlaid_curves(histories, spec.headline, spec.headline_metric) if histories else None
    return [Section("Training", figure=figure)] if figure else []
