"""Write the result of a robustness evaluation as JSON and as an HTML page."""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from statistics import fmean

from fastvit.environment import environment
from fastvit.evaluation.robustness.corruptions import CORRUPTIONS, SEVERITIES
from fastvit.evaluation.robustness.measure import Robustness
from fastvit.evaluation.robustness.plots import heat_map, severity_curves
from fastvit.evaluation.robustness.scores import corruption_errors
from fastvit.evaluation.robustness.suites import SUITES, Suite
from fastvit.files import write_text
from fastvit.reports.page import Section, Table, write_report
from fastvit.runs.files import ROBUSTNESS, ROBUSTNESS_PAGE

METRICS = {
    "top1": "top-1",
    "top5": "top-5",
    "mean_error": "mean error",
    "clean_error": "error on clean images",
    "relative_error": "mean error minus clean error",
    "mce": "mCE",
    "relative_mce": "relative mCE",
}
_FROST = (
    "Frost is a computed texture, because the benchmark's photographs cannot be redistributed: do not compare its "
    "error, or a mean that contains it, with published numbers."
)


def write_robustness(result: Robustness, checkpoint: str, folder: Path) -> Path:
    """Write robustness.json and robustness.html to a folder.

    Args:
        result: result of the evaluation.
        checkpoint: checkpoint or artifact, as it was given.
        folder: folder; it is created if it does not exist.

    Returns:
        The path of robustness.html.
    """
    when = datetime.now(UTC).isoformat(timespec="seconds")
    content = {"checkpoint": checkpoint, **asdict(result), "date": when, "environment": environment()}
    write_text(folder / ROBUSTNESS, json.dumps(content, indent=2) + "\n")
    suite = SUITES[result.suite]
    measured = f"{suite.title} corruptions" if result.computed_here else suite.title
    title = f"Robustness of {Path(checkpoint).name}: {measured}"
    sections = [Section("Results", notes(result), table=score_table(result))]
    if result.errors:
        sections += _corruption_sections(result)
    sections.append(published_section(suite))
    summary = f"{checkpoint} on {result.data}, {result.images} images{' per corruption' if result.errors else ''}."
    return write_report(folder / ROBUSTNESS_PAGE, title, summary, sections)


def score_table(result: Robustness) -> Table:
    """Return a row for each metric, in percent."""
    return Table(("metric", "value"), [(METRICS[name], f"{value:.2%}") for name, value in result.metrics.items()])


def corruption_table(result: Robustness) -> Table:
    """Return a row for each corruption: its errors and, where mCE is defined, its corruption error (CE)."""
    normalized = corruption_errors(result.errors) if "mce" in result.metrics else {}
    rows = []
    for name, row in result.errors.items():
        cells = [name, CORRUPTIONS[name].group, *(f"{error:.2%}" for error in row), f"{fmean(row):.2%}"]
        rows.append([*cells, f"{normalized[name]:.2%}"] if normalized else cells)
    header = ["corruption", "group", *(f"severity {severity}" for severity in SEVERITIES), "mean"]
    return Table([*header, "CE"] if normalized else header, rows)


def notes(result: Robustness) -> str:
    """Return what a reader has to know to compare the numbers with published ones."""
    suite = SUITES[result.suite]
    said = [f"{suite.title} ({suite.paper})."]
    if not result.complete:
        said.append(f"Quick check: only {result.images} images, evenly spread over the data, were used.")
    if suite.classes < 1000:
        said.append(f"The prediction is the most probable of the suite's {suite.classes} classes.")
    if result.computed_here:
        said.append("The corruptions were computed at the model's input size, without the benchmark's JPEG files.")
        if "frost" in result.errors:
            said.append(_FROST)
    if "mce" in result.metrics:
        said.append("CE is the mean error over the five severities divided by AlexNet's; mCE is its mean.")
    return " ".join(said)


def published_section(suite: Suite) -> Section:
    """Return the published results of the released weights, for comparison."""
    if not suite.published:
        return Section("Published results", f"This package lists no published results of FastViT on {suite.title}.")
    rows = [(f"fastvit_{name}", *(f"{value:.1f}%" for value in row)) for name, row in suite.published.items()]
    text = f"Top-1 accuracy of the released weights on {suite.title}, measured by timm at 256 pixels."
    return Section("Published results", text, table=Table(("variant", "top-1", "distilled"), rows))


def _corruption_sections(result: Robustness) -> list[Section]:
    clean = result.metrics.get("clean_error")
    return [
        Section("Results per corruption", "Top-1 error.", table=corruption_table(result)),
        Section("Heat map", "Top-1 error of each corruption at each severity.", [heat_map(result.errors)]),
        Section(
            "Severity curves", "Top-1 error at each severity; 0 is clean images.", severity_curves(result.errors, clean)
        ),
    ]
