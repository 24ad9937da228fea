"""An evaluation of a detector or segmenter as files: every number as JSON, and a page to look at."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

from fastvit.environment import environment
from fastvit.evaluation.dense import DenseMeasured
from fastvit.evaluation.examples import examples_section
from fastvit.evaluation.numbers import METRICS, as_text
from fastvit.evaluation.report import Section, Table, write_report
from fastvit.files import write_text


def write_dense_evaluation(measured: DenseMeasured, out: Path) -> Path:
    """Write evaluation.json and evaluation.html into a folder, of a detector also detections.json, COCO's results.

    Returns:
        The path of the page.

    Raises:
        UserError: they cannot be written.
    """
    content = {
        **measured.summary(),
        "per_class": measured.by_class(),
        "environment": environment(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    write_text(out / "evaluation.json", json.dumps(content, indent=1))
    if measured.results is not None:
        write_text(out / "detections.json", json.dumps(measured.results))
    label, value = measured.headline
    return write_report(
        out / "evaluation.html",
        title=f"{Path(measured.checkpoint).name} on {Path(measured.data).name}",
        summary=f"{label} {as_text(label, value)} on {measured.images} held-out images.",
        sections=[
            _numbers_section(measured),
            examples_section(measured.examples, measured.task),
            _classes_section(measured),
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


def _classes_section(measured: DenseMeasured) -> Section:
    return Section(
        "Classes", "The worst first.", table=Table(("class", measured.per_class_label), measured.class_rows())
    )
