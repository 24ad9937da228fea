"""The history of a run, from its metrics.csv."""

from __future__ import annotations

import csv
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

Series = dict[str, list[tuple[float, float]]]
# Columns that have a value an epoch, by other names than they are shown under; those of validation keep theirs.
_SERIES = {"train/loss_epoch": "train/loss"}


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
        reader = csv.DictReader(file)
        rows, columns = list(reader), reader.fieldnames or ()
    shown = _SERIES | {column: column for column in columns if column.startswith("val/")}
    series: Series = {}
    ends = {0: 0.0}  # steps made -> epochs ended
    for row in rows:
        for column, metric in shown.items():
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
