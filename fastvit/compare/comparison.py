"""Comparison of runs: the contents of their folders, and tables of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastvit.bench.complexity import Complexity
from fastvit.bench.models import complexity_of
from fastvit.bench.suite import bench_models
from fastvit.errors import UserError
from fastvit.files import user_path
from fastvit.model.task_model import TaskModel
from fastvit.reports.page import Table
from fastvit.runs.files import BEST, EVALUATION, HISTORY, RECIPE, ROBUSTNESS
from fastvit.runs.history import History, read_history
from fastvit.runs.settings import read_json, read_settings, setting_text
from fastvit.tasks.spec import TaskSpec
from fastvit.tasks.table import find_task
from fastvit.timing import Timing
from fastvit.training.recipe import default_settings
from fastvit.weights.location import locate
from fastvit.weights.native import build, describe
from fastvit.weights.source import read

Timings = Mapping[str, Timing]


@dataclass(frozen=True)
class Entry:
    """One run, or one checkpoint without a run.

    Attributes:
        name: unique name in the comparison.
        model: model with the best weights.
        metrics: metrics of the best weights when they were saved: "top1", "top5", "box_ap", "miou", ... (fractions),
            "loss".
        complexity: parameters and multiply-accumulates of the model at its own image size.
        megabytes: size of the weights file, in MB.
        settings: all fields of the recipe by their dotted names; empty if there is no recipe.
        history: history of the training.
        evaluation: results that `fastvit eval --out` wrote into the run's folder.
        robustness: results that `fastvit robustness` wrote beside the best weights, one for each suite.
    """

    name: str
    model: TaskModel
    metrics: Mapping[str, float]
    complexity: Complexity
    megabytes: float
    settings: Mapping[str, Any]
    history: History
    evaluation: Mapping[str, Any]
    robustness: Sequence[Mapping[str, Any]]

    @property
    def score(self) -> float | None:
        """Value of the task's main metric, in its own unit; None if it was not measured."""
        return self.metrics.get(self.spec.headline)

    @property
    def spec(self) -> TaskSpec:
        """Specification of the run's task."""
        return find_task(self.model.task)

    @property
    def images_seen(self) -> int | None:
        """Number of training images over all steps, with repetitions; None if it is not known."""
        if not (self.settings and self.history.steps):
            return None
        names = ("batch_size", "accumulate_grad_batches", "devices", "num_nodes")
        factors = [int(self.settings.get(name, 1)) for name in names]
        images = self.history.steps
        for factor in factors:
            images *= factor
        return images


def collect(sources: Sequence[str]) -> list[Entry]:
    """Read the runs to compare.

    Args:
        sources: folders of runs, or weights that `fastvit.load` accepts.

    Raises:
        UserError: a source is neither a run nor a weights file, a file is corrupt, a run is given twice, or the tasks
            differ.
    """
    paths = [user_path(source) for source in sources]
    if len({path.resolve() for path in paths}) < len(paths):
        raise UserError(f"a run is given twice: {', '.join(sources)}")
    names = [path.stem if path.is_file() else path.name for path in paths]
    if len(set(names)) < len(names):
        names = list(sources)
    entries = [_read_entry(name, source) for name, source in zip(names, sources, strict=True)]
    tasks = sorted({entry.model.task for entry in entries})
    if len(tasks) > 1:
        raise UserError(f"runs of different tasks cannot be compared ({', '.join(tasks)}): give runs of one task")
    return entries


def _read_entry(name: str, source: str) -> Entry:
    weights, file = locate(source), read(source)
    folder = user_path(source)
    settings = read_settings(folder / RECIPE)
    model = build(file)
    return Entry(
        name=name,
        model=model,
        metrics=describe(file).metrics,
        complexity=complexity_of(model),
        megabytes=weights.stat().st_size / 1e6,
        settings=default_settings(model.task) | settings if settings else {},
        history=read_history(folder / HISTORY),
        evaluation=read_json(folder / EVALUATION),
        robustness=[read_json(path) for path in sorted(folder.glob(f"{Path(BEST).stem}-*/{ROBUSTNESS}"))],
    )


def measure_latency(entries: Sequence[Entry], device: str, rounds: int) -> dict[str, Timing]:
    """Measure the latency of the fused models at batch size 1, in alternation.

    Args:
        entries: runs whose models are timed.
        device: device to measure on, such as "cpu" or "cuda".
        rounds: number of timed calls of each model.

    Returns:
        Timings by the entries' names.
    """
    return bench_models({entry.name: entry.model for entry in entries}, device, rounds)


def result_table(entries: Sequence[Entry], timings: Timings) -> Table:
    """Return a table with a column for each run, and a row for each value that any run has."""
    columns = [_cells(entry, timings.get(entry.name)) for entry in entries]
    names = dict.fromkeys(name for column in columns for name in column)
    known = [name for name in names if any(column.get(name) for column in columns)]
    rows = [[name, *(column.get(name) or "-" for column in columns)] for name in known]
    return Table(["run", *(entry.name for entry in entries)], rows)


def _cells(entry: Entry, timing: Timing | None) -> dict[str, str]:
    """Return the values of a run as text by row name; the text is empty if a value is not known."""
    height, width = entry.model.preprocessing.size
    seen, cost = entry.images_seen, entry.complexity
    return {
        "variant": entry.model.variant,
        "size": f"{height}x{width}",
        "head": _head(entry.model.options),
        "epochs": str(entry.history.epochs or ""),
        "images seen": f"{seen:,}" if seen else "",
        **_metric_cells(entry),
        "parameters, M": f"{cost.params / 1e6:.2f}",
        "parameters (fused), M": f"{cost.params_fused / 1e6:.2f}",
        "GMACs": f"{cost.gmacs:.3f}",
        "latency, ms": f"{timing.median:.2f}" if timing else "",
        "latency IQR, ms": f"{timing.low:.2f} to {timing.high:.2f}" if timing else "",
        "file, MB": f"{entry.megabytes:.1f}",
        **_robustness_cells(entry.robustness),
    }


def _metric_cells(entry: Entry) -> dict[str, str]:
    """Return the metrics of the training's best weights, and those that only `fastvit eval` measures."""
    values = {**entry.evaluation, **entry.metrics}
    return {
        metric.label: "" if values.get(name) is None else metric.text(values[name])
        for name, metric in entry.spec.metrics.items()
        if metric.compared
    }


def _robustness_cells(results: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    shown = {"top1": "top-1", "mean_error": "mean error", "mce": "mCE"}
    return {
        f"{result['suite']} {text}": _percent(result["metrics"].get(name))
        for result in results
        for name, text in shown.items()
    }


def settings_table(entries: Sequence[Entry]) -> Table:
    """Return a table of the recipe fields that differ between the runs, with a row for each field."""
    known = [entry for entry in entries if entry.settings]
    fields = dict.fromkeys(field for entry in known for field in entry.settings)
    rows = [[field, *(setting_text(entry.settings.get(field)) for entry in known)] for field in fields]
    return Table(["setting", *(entry.name for entry in known)], [row for row in rows if len(set(row[1:])) > 1])


def _head(options: Any) -> str:
    """Return the kind of head or detector on the backbone, as the task's options name it."""
    network = getattr(options, "network", options)
    return getattr(network, "kind", getattr(network, "head", ""))


def _percent(value: float | None) -> str:
    return "" if value is None else f"{value:.2%}"
