"""An evaluation as files: every number as JSON, and a page to look at."""

from __future__ import annotations

import json
import textwrap
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from fastvit.data.datasets import IGNORED
from fastvit.environment import environment
from fastvit.evaluation.calibration import BINS
from fastvit.evaluation.checkpoint import Measured
from fastvit.evaluation.class_tables import classes_by_accuracy, confused_pairs
from fastvit.evaluation.plots import reliability_diagram
from fastvit.files import write_text
from fastvit.reports.metric_format import METRICS, as_text
from fastvit.reports.page import Section, Table, write_report
from fastvit.reports.plots import confusion_matrix
from fastvit.runs.files import EVALUATION, EVALUATION_PAGE
from fastvit.tasks.classification.drawing import prediction_sheet
from fastvit.tasks.classification.prediction import Label

# More classes than this cannot be told apart in a picture of the confusion matrix.
MATRIX_CLASSES = 50


def write_evaluation(measured: Measured, out: Path) -> Path:
    """Write evaluation.json and evaluation.html into a folder; returns the path of the page.

    Raises:
        UserError: they cannot be written.
    """
    write_text(out / EVALUATION, json.dumps(_numbers(measured), indent=1))
    result = measured.result
    skipped = f" {result.skipped} could not be read and are in none of the numbers." if result.skipped else ""
    return write_report(
        out / EVALUATION_PAGE,
        title=f"{Path(measured.checkpoint).name} on {Path(measured.data).name}",
        summary=f"{result.metrics['top1']:.2%} of {measured.counted} named right.{skipped}",
        sections=[
            _summary_section(measured),
            _calibration_section(measured),
            _confusion_section(measured),
            *_mistakes_sections(measured),
            _classes_section(measured),
        ],
    )


def _numbers(measured: Measured) -> dict[str, object]:
    result = measured.result
    names = measured.pictures.classes
    return {
        **measured.summary(),
        "per_class": {
            names[c]: {"images": int(result.class_images[c]), "top1": float(result.class_accuracy[c])}
            for c in np.flatnonzero(result.class_images)
        },
        # (true class, predicted class, images) of all that is not 0
        "confusion": [[int(t), int(p), int(result.confusion[t, p])] for t, p in np.argwhere(result.confusion)],
        "reliability": [asdict(b) for b in result.reliability],
        "environment": environment(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _summary_section(measured: Measured) -> Section:
    result, (height, width) = measured.result, measured.preprocessing.size
    rows = [(METRICS[name], as_text(name, value)) for name, value in result.metrics.items()]
    if result.speed:
        rows += [
            ("images a second, all in all", f"{result.speed.overall:.0f}"),
            ("images a second, the network alone", f"{result.speed.model:.0f}"),
        ]
    rows += [
        ("checkpoint", measured.checkpoint),
        ("data", measured.data + (", the images that the run held out" if measured.divided else "")),
        ("network", f"{measured.form} form, in {measured.runtime} on {measured.device}"),
        ("images", f"{height}x{width} pixels, crop {measured.preprocessing.crop_pct:g}"),
    ]
    return Section("Numbers", table=Table(("what", "value"), rows))


def _calibration_section(measured: Measured) -> Section:
    error = as_text("ece", measured.result.metrics["ece"])
    text = (
        f"Images by the probability of their predicted class, in {BINS} bins: a calibrated classifier is on the "
        f"diagonal. The expected calibration error, {error}, is the mean distance from it, weighted by the images of "
        "each bin."
    )
    return Section("Calibration", text, reliability_diagram(measured.result.reliability))


def _confusion_section(measured: Measured) -> Section:
    result, names = measured.result, measured.pictures.classes
    if len(names) <= MATRIX_CLASSES:
        return Section("Confusion", figure=confusion_matrix(result.confusion, names))
    header = ("true class", "named", "times", "share of the true class")
    return Section("Confusion", "The most frequent mistakes.", table=Table(header, confused_pairs(result, names)))


def _mistakes_sections(measured: Measured, count: int = 24) -> list[Section]:
    """One, or none where there is no mistake."""
    result = measured.result
    wrong = np.flatnonzero((result.predicted != result.targets) & (result.targets != IGNORED))
    worst = wrong[np.argsort(-result.probability[wrong], kind="stable")][:count]
    if not len(worst):
        return []
    names = [textwrap.shorten(name, 20, placeholder="…") for name in measured.pictures.classes]
    guesses = [Label(int(result.predicted[i]), names[result.predicted[i]], float(result.probability[i])) for i in worst]
    truths = [names[result.targets[i]] for i in worst]
    sheet = prediction_sheet([measured.pictures.image(i) for i in worst], guesses, truths)
    text = "The wrong answers with the highest probability: where labels are wrong, they are found here."
    return [Section("Most confident mistakes", text, sheet, pixels=True)]


def _classes_section(measured: Measured) -> Section:
    rows = classes_by_accuracy(measured.result, measured.pictures.classes)
    return Section("Classes", "The worst first.", table=Table(("class", "images", "top-1"), rows))
