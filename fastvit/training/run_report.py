"""Report of a finished training run: a plot of its curves, and an HTML page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fastvit.errors import UserError
from fastvit.evaluation.examples import Example, examples_section
from fastvit.files import atomic
from fastvit.reports.page import Section, Table, write_report
from fastvit.reports.plots import training_curves, training_plots
from fastvit.runs.files import BEST, CURVES, ENVIRONMENT, HISTORY, RECIPE, REPORT
from fastvit.runs.history import History, read_history
from fastvit.runs.settings import read_json, read_settings, setting_text
from fastvit.tasks.table import find_task
from fastvit.training.recipe import default_settings
from fastvit.weights.description import Description
from fastvit.weights.native import describe
from fastvit.weights.source import read


def write_run_report(out: Path, examples: Sequence[Example] = ()) -> Path:
    """Write curves.png and report.html into the folder of a run, from the files in it.

    Args:
        out: folder with best.safetensors, and optionally recipe.yaml, environment.json and metrics.csv.
        examples: validation images with predictions, for tasks that draw them.

    Returns:
        The path of report.html.

    Raises:
        UserError: the folder does not contain a run, or a file of it is corrupt.
    """
    best = out / BEST
    if not best.is_file():
        raise UserError(f"{out} does not contain a run: {best.name} was not found")
    description, history = describe(read(best)), read_history(out / HISTORY)
    settings = read_settings(out / RECIPE)
    metrics = find_task(description.task).curve_metrics
    curves = training_curves(history.series, metrics)
    with atomic(out / CURVES) as part:
        curves.savefig(part, format="png", dpi=110)
    sections = [_summary_section(description, history)]
    if history.series:
        sections.append(Section("Training curves", _CURVES_TEXT, training_plots(history.series, metrics)))
    if examples:
        sections.append(examples_section(examples, find_task(description.task)))
    if settings:
        sections.append(_settings_section(settings, description.task))
    return write_report(
        out / REPORT,
        title=f"{description.variant} on {settings.get('data', 'its data')}",
        summary=_summary(description, history),
        sections=sections,
        measured_with=read_json(out / ENVIRONMENT),
    )


_CURVES_TEXT = (
    "train/loss is measured on augmented images, with mixup and label smoothing where the recipe uses them; val/loss "
    "without. Validation uses the EMA weights where the recipe keeps an EMA."
)


def _summary(description: Description, history: History) -> str:
    count = f"{history.epochs} epoch{'s' * (history.epochs != 1)}" if history.epochs else ""
    spec = find_task(description.task)
    if (value := description.metrics.get(spec.headline)) is None:
        return f"Trained for {count}." if count else "Trained."
    metric = spec.headline_metric
    return f"{metric.title} {metric.text(value)} on the validation images{f' after {count}' if count else ''}."


def _summary_section(description: Description, history: History) -> Section:
    preprocessing, metrics = description.preprocessing, description.metrics
    shown = find_task(description.task).metrics
    rows = [(metric.label, metric.text(metrics[name])) for name, metric in shown.items() if name in metrics]
    rows += [("epochs", str(history.epochs)), ("steps", f"{history.steps:,}")] if history.epochs else []
    rows += [
        ("classes", str(description.config.num_classes)),
        ("preprocessing", str(preprocessing)),
    ]
    return Section("Best checkpoint", table=Table(("metric or setting", "value"), rows))


def _settings_section(settings: Mapping[str, Any], task: str) -> Section:
    defaults = default_settings(task)
    changed = [
        (name, setting_text(value), setting_text(defaults.get(name)))
        for name, value in settings.items()
        if value != defaults.get(name)
    ]
    text = "Recipe fields that differ from the defaults. recipe.yaml contains all of them."
    return Section("Settings", text, table=Table(("setting", "value", "default"), changed))
