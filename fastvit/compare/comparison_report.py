"""HTML report of the comparison of runs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from fastvit.compare.comparison import Entry, Timings, result_table, settings_table
from fastvit.reports.page import Section, write_report
from fastvit.reports.plots import overlaid_curves, tradeoff

FRONT = "The dashed line is the Pareto front; runs that are not on it are red."


def write_comparison(path: Path, entries: Sequence[Entry], timings: Timings, device: str) -> Path:
    """Write the HTML report, without the sections that no run has data for, and return its path.

    Args:
        path: HTML file to write.
        entries: runs to compare, at least one.
        timings: latencies by the entries' names; empty if they were not measured.
        device: device that the latencies were measured on.
    """
    return write_report(
        path,
        title=f"Comparison of {len(entries)} runs" if len(entries) > 1 else entries[0].name,
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
    "Metrics are those of the best epoch on each run's own validation images: compare them only where the data are the "
    "same. GMACs are the multiply-accumulates of the fused model for one image."
)


def _summary(entries: Sequence[Entry], timings: Timings) -> str:
    parts = []
    if scored := [(entry.score, entry.name) for entry in entries if entry.score is not None]:
        metric = entries[0].spec.headline_metric
        score, name = min(scored) if metric.lower_is_better else max(scored)
        parts.append(f"Best {metric.label}: {metric.text(score)} ({name})")
    if timings:
        fastest = min(timings, key=lambda name: timings[name].median)
        parts.append(f"lowest latency: {timings[fastest].median:.2f} ms ({fastest})")
    if not parts:
        return "These runs contain no metrics."
    text = "; ".join(parts)
    return f"{text[0].upper()}{text[1:]}."


def _settings_sections(entries: Sequence[Entry]) -> list[Section]:
    table = settings_table(entries)
    return [Section("Settings that differ", table=table)] if table.rows else []


def _latency_sections(entries: Sequence[Entry], timings: Timings, device: str) -> list[Section]:
    points = {e.name: (timings[e.name].median, e.score) for e in entries if e.name in timings and e.score is not None}
    if not points:
        return []
    rounds = next(iter(timings.values())).rounds
    text = f"Fused models in PyTorch on {device}, batch size 1, median of {rounds} interleaved calls. {FRONT}"
    return [_tradeoff_section("latency", text, entries, points, "latency, ms")]


def _parameter_sections(entries: Sequence[Entry]) -> list[Section]:
    points = {e.name: (e.complexity.params_fused / 1e6, e.score) for e in entries if e.score is not None}
    if not points:
        return []
    return [_tradeoff_section("parameters", FRONT, entries, points, "parameters (fused), M")]


def _tradeoff_section(
    name: str, text: str, entries: Sequence[Entry], points: dict[str, tuple[float, float]], cost: str
) -> Section:
    metric = entries[0].spec.headline_metric
    return Section(f"{metric.title} vs. {name}", text, [tradeoff(points, cost, metric)])


def _curve_sections(entries: Sequence[Entry]) -> list[Section]:
    histories = {e.name: e.history.series for e in entries if e.history.series}
    spec = entries[0].spec
    plots = overlaid_curves(histories, spec.headline, spec.headline_metric)
    return [Section("Training curves", plots=plots)] if plots else []
