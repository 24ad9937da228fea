"""An evaluation of a detector or segmenter as files: every number as JSON, and a page to look at."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from matplotlib.figure import Figure

from fastvit.environment import environment
from fastvit.evaluation.dense import DRAWN, DenseMeasured, Example
from fastvit.evaluation.numbers import METRICS, as_text
from fastvit.evaluation.report import Section, Table, write_report
from fastvit.files import write_text


def write_dense_evaluation(measured: DenseMeasured, out: Path) -> Path:
    """Write evaluation.json and evaluation.html into a folder; returns the path of the page.

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
    label, value = measured.headline
    return write_report(
        out / "evaluation.html",
        title=f"{Path(measured.checkpoint).name} on {Path(measured.data).name}",
        summary=f"{label} {as_text(label, value)} on {measured.images} held-out images.",
        sections=[_numbers_section(measured), *_examples_section(measured), _classes_section(measured)],
    )


def _numbers_section(measured: DenseMeasured) -> Section:
    short, long = measured.preprocessing.size
    rows = [(METRICS[name], as_text(name, value)) for name, value in measured.metrics.items()]
    if measured.images_per_second:
        rows.append(("images a second, network and decoding", f"{measured.images_per_second:.1f}"))
    rows += [
        ("checkpoint", measured.checkpoint),
        ("data", measured.data),
        ("network", f"{measured.form} form, in {measured.runtime} on {measured.device}"),
        ("images", f"within {short}x{long} pixels"),
    ]
    return Section("Numbers", table=Table(("what", "value"), rows))


def _examples_section(measured: DenseMeasured) -> list[Section]:
    """One, or none where nothing was kept."""
    if not measured.examples:
        return []
    least = f", objects from {DRAWN:.0%} on" if measured.task == "detection" else ""
    text = f"Left what is true, right what the model says{least}."
    return [Section("Examples", text, _pairs(measured.examples), pixels=True)]


def _pairs(examples: Sequence[Example]) -> Figure:
    """Truth and answer side by side, two examples a row."""
    rows = -(-len(examples) // 2)
    figure = Figure(figsize=(12, 3.2 * rows), layout="constrained")
    places = figure.subplots(rows, 4, squeeze=False)
    for place in places.flat:
        place.axis("off")
    for index, example in enumerate(examples):
        row, column = divmod(index, 2)
        for offset, picture in enumerate((example.truth, example.answer)):
            places[row, 2 * column + offset].imshow(picture)
        places[row, 2 * column].set_title(Path(example.name).name, fontsize=8, loc="left")
    return figure


def _classes_section(measured: DenseMeasured) -> Section:
    rows = sorted(measured.per_class.items(), key=lambda row: -1.0 if row[1] != row[1] else row[1])
    shown = [(name, "-" if value != value else f"{value:.2%}") for name, value in rows]
    return Section("Classes", "The worst first.", table=Table(("class", measured.per_class_label), shown))
