"""Write the result of an evaluation as JSON and as an HTML page."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

from fastvit.environment import environment
from fastvit.evaluation.checkpoint import EvaluationResult
from fastvit.evaluation.examples import examples_section
from fastvit.files import write_text
from fastvit.reports.page import Section, Table, write_report
from fastvit.runs.files import EVALUATION, EVALUATION_PAGE

_PLURALS = {"class": "Classes"}


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
    found = measured.found
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
    skipped = f" {found.skipped} could not be read and are in none of the numbers." if found.skipped else ""
    return write_report(
        out / EVALUATION_PAGE,
        title=f"{Path(measured.checkpoint).name} on {Path(measured.data).name}",
        summary=f"{measured.headline} on {measured.counted}.{skipped}",
        sections=[
            _numbers_section(measured),
            *([examples_section(measured.examples, measured.spec)] if measured.examples else []),
            *found.sections(),
            _parts_section(measured),
        ],
    )


def _numbers_section(measured: EvaluationResult) -> Section:
    rows = list(measured.metric_texts().items())
    rows += [(rate.label, f"{rate.value:.1f}") for rate in measured.found.rates if rate.value]
    rows += [
        ("checkpoint", measured.checkpoint),
        ("data", measured.data + (" (validation split of the run)" if measured.run_split else "")),
        ("network", f"{measured.form} form, in {measured.runtime} on {measured.device}"),
        ("images", str(measured.preprocessing)),
    ]
    return Section("Numbers", table=Table(("what", "value"), rows))


def _parts_section(measured: EvaluationResult) -> Section:
    parts = measured.found.parts
    title = _PLURALS.get(parts.name, f"{parts.name.capitalize()}s")
    return Section(title, "The worst first.", table=Table(parts.header, parts.rows))
