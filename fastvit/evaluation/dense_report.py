"""An evaluation of a task other than classification as files: every number as JSON, and a page to look at."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

from fastvit.environment import environment
from fastvit.evaluation.dense import DenseMeasured
from fastvit.evaluation.examples import examples_section
from fastvit.files import write_text
from fastvit.reports.metric_format import METRICS, as_text
from fastvit.reports.page import Section, Table, write_report
from fastvit.runs.files import EVALUATION, EVALUATION_PAGE


def write_dense_evaluation(measured: DenseMeasured, out: Path) -> Path:
    """Write evaluation.json, evaluation.html and the files of `DenseMeasured.results` into a folder.

    Returns:
        The path of the page.

    Raises:
        UserError: they cannot be written.
    """
    content = {
        **measured.summary(),
        f"per_{measured.part}": measured.by_part(),
        "environment": environment(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    write_text(out / EVALUATION, json.dumps(content, indent=1))
    for name, results in measured.results.items():
        write_text(out / name, json.dumps(results))
    return write_report(
        out / EVALUATION_PAGE,
        title=f"{Path(measured.checkpoint).name} on {Path(measured.data).name}",
        summary=f"{measured.headline} on {measured.images} held-out images.",
        sections=[
            _numbers_section(measured),
            *([examples_section(measured.examples, measured.task)] if measured.examples else []),
            *measured.sections,
            _parts_section(measured),
        ],
    )


def _numbers_section(measured: DenseMeasured) -> Section:
    rows = [(METRICS[name], as_text(name, value)) for name, value in measured.metrics.items()]
    if measured.images_per_second:
        rows.append(("images a second, network and decoding", f"{measured.images_per_second:.1f}"))
    rows += [
        ("checkpoint", measured.checkpoint),
        ("data", measured.data),
        ("network", f"{measured.form} form, in {measured.runtime} on {measured.device}"),
        ("images", str(measured.preprocessing)),
    ]
    return Section("Numbers", table=Table(("what", "value"), rows))


def _parts_section(measured: DenseMeasured) -> Section:
    title = {"class": "Classes", "joint": "Joints"}[measured.part]
    rows = Table((measured.part, measured.per_part_label), measured.part_rows())
    return Section(title, "The worst first.", table=rows)
