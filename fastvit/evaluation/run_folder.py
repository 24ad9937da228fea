"""What the files in a run's folder say: recipe.yaml, metrics.csv, and the JSON files that other commands add."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from fastvit.errors import UserError
from fastvit.tasks.table import TASKS
from fastvit.training.options import Recipe

Series = dict[str, list[tuple[float, float]]]
# Columns of metrics.csv that have a value an epoch.
_COLUMNS = {
    "train/loss_epoch": "train/loss",
    "val/loss": "val/loss",
    **{f"val/{kind.headline}": f"val/{kind.headline}" for kind in TASKS.values()},
    **{f"val/{name}": f"val/{name}" for name in ("top5", "box_ap50", "mask_ap", "pixel_accuracy", "mpjpe")},
}
# What says where a run was and not what it did.
_PLACES = ("out", "overwrite", "resume", "workers")


@dataclass(frozen=True)
class History:
    """Of a training run.

    Attributes:
        epochs: how many were ended.
        steps: how many the optimizer made.
        series: name -> (epoch, value) pairs: "train/loss", "val/loss", "val/top1" and other metrics, and "lr" at
            fractions of an epoch; only what was recorded.
    """

    epochs: int = 0
    steps: int = 0
    series: Series = field(default_factory=dict)


def read_history(path: Path) -> History:
    """The history in a metrics.csv; an empty one if there is no such file."""
    if not path.is_file():
        return History()
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    series: Series = {}
    ends = {0: 0.0}  # steps made -> epochs ended
    for row in rows:
        for column, metric in _COLUMNS.items():
            if value := row.get(column):
                epoch = float(row["epoch"]) + 1
                series.setdefault(metric, []).append((epoch, float(value)))
                ends[int(row["step"]) + 1] = epoch
    rates = [(int(row["step"]), float(row["train/lr"])) for row in rows if row.get("train/lr")]
    if rates and len(ends) > 1:
        known = sorted(ends)
        places = np.interp([step for step, _ in rates], known, [ends[step] for step in known])
        series["lr"] = [(place, rate) for place, (_, rate) in zip(places.tolist(), rates, strict=True)]
    return History(int(max(ends.values())), max(ends), series)


def read_settings(path: Path) -> dict[str, Any]:
    """The fields of a recipe file by their dotted names, such as "optim.lr"; empty if there is no such file.

    Raises:
        UserError: the file is no YAML with fields.
    """
    if not path.is_file():
        return {}
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise UserError(f"{path} is no YAML: {' '.join(str(error).split())}") from error
    if not isinstance(content, Mapping):
        raise UserError(f"{path} is no recipe: it must hold fields, such as epochs: 30")
    return flatten(content)


def default_settings() -> dict[str, Any]:
    """Every field of a recipe with its default, by its dotted name."""
    return flatten(json.loads(json.dumps(asdict(Recipe()), default=str)))


def flatten(content: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested fields by their dotted names, without those that say where a run was."""
    flat: dict[str, Any] = {}
    for key, value in content.items():
        if prefix or key not in _PLACES:
            flat |= flatten(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return flat


def setting_text(value: Any) -> str:
    """A field's value to show."""
    if value is None:
        return "-"
    return str(value) or "none"


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file; empty if there is no such file.

    Raises:
        UserError: the file is damaged.
    """
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{path} is damaged: {error}") from error
    if not isinstance(content, dict):
        raise UserError(f"{path} is damaged: it must hold a JSON object")
    return content
