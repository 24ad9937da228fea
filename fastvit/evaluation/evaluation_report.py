"""Write the result of an evaluation as JSON and as an HTML page."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

from fastvit.console import counted
from fastvit.environment import environment
from fastvit.evaluation.checkpoint import EvaluationResult
from fastvit.evaluation.examples import examples_section
from fastvit.files import write_text
from fastvit.reports.page import Section, Table, write_report
from fastvit.runs.files import EVALUATION, EVALUATION_PAGE


def write_evaluation(measured: EvaluationResult, out: Path) -> Path:
    """Write evaluation.json, evaluation.html and the files of `Measurement.results` to a folder.

    Args:
        measured: result of the evaluation.
        out: folder; it is created if it does not exist.

    Returns:
        The path of evaluation.html.

    Raises:
        UserError: the files cannot be written.
    """
    found, headline = measured.found, measured.spec.headline_metric
    content = {
        **measured.summary(),
        f"per_{found.parts.name}": found.parts.values,
        **found.details,
        "environment": environment(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    write_text(out / EVALUATION, json.dumps(content, indent=1))
    for name, results in found.results.items():
        write_text(out / name, json.dumps(results))
    value = headline.text(found.metrics[measured.spec.headline])
    skipped = f" {counted(found.skipped, 'unreadable image')} skipped." if found.skipped else ""
    return write_report(
        out / EVALUATION_PAGE,
        title=f"Evaluation: model {Path(measured.checkpoint).name}, data {Path(measured.data).name}",
        summary=f"{headline.title} {value} on {measured.counted}.{skipped}",
        sections=[
            _metrics_section(measured),
            *([examples_section(measured.examples, measured.spec)] if measured.examples else []),
            *found.sections(),
            _parts_section(measured),
            _setup_section(measured),
        ],
    )


def _metrics_section(measured: EvaluationResult) -> Section:
    rows = list(measured.metric_texts().items())
    rows += [(rate.label, f"{rate.value:.1f}") for rate in measured.found.rates if rate.value]
    return Section("Metrics", table=Table(("metric", "value"), rows))


def _setup_section(measured: EvaluationResult) -> Section:
    rows = [
        ("checkpoint", measured.checkpoint),
        ("data", measured.data + (" (validation split of the run)" if measured.run_split else "")),
        ("images", measured.counted),
        ("form", measured.form),
        ("runtime", f"{measured.runtime} on {measured.device}"),
        ("preprocessing", str(measured.preprocessing)),
    ]
    return Section("Setup", table=Table(("setting", "value"), rows))


def _parts_section(measured: EvaluationResult) -> Section:
    parts = measured.found.parts
    text = f"Sorted by {parts.header[-1]}, worst first."
    return Section(f"Results per {parts.name}", text, table=Table(parts.header, parts.rows))
