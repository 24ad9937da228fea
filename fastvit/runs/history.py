"""History of a run, from its metrics.csv."""

from __future__ import annotations

import csv
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

Series = dict[str, list[tuple[float, float]]]
# Columns with one value per epoch that are shown under another name; those of validation keep theirs.
_SERIES = {"train/loss_epoch": "train/loss"}


@dataclass(frozen=True)
class History:
    """History of a training run.

    Attributes:
        epochs: number of completed epochs.
        steps: number of optimizer steps.
        series: name -> (epoch, value) pairs, of the values that were recorded: "train/loss", "val/loss", "val/top1" and
            other metrics, and "lr", the learning rate, at fractions of an epoch.
    """

    epochs: int = 0
    steps: int = 0
    series: Series = field(default_factory=dict)


def read_history(path: Path) -> History:
    """Read the history in a metrics.csv; it is empty if the file does not exist."""
    if not path.is_file():
        return History()
    with path.open(newline="") as file:
        reader = csv.DictReader(file)
        rows, columns = list(reader), reader.fieldnames or ()
    shown = _SERIES | {column: column for column in columns if column.startswith("val/")}
    series: Series = {}
    ends = {0: 0.0}  # completed steps -> completed epochs
    for row in rows:
        for column, metric in shown.items():
            if value := row.get(column):
                epoch = float(row["epoch"]) + 1
                series.setdefault(metric, []).append((epoch, float(value)))
                ends[int(row["step"]) + 1] = epoch
    rates = [(int(row["step"]), float(row["train/lr"])) for row in rows if row.get("train/lr")]
    if rates and len(ends) > 1:
        known = sorted(ends)
        epochs = np.interp([step for step, _ in rates], known, [ends[step] for step in known])
        series["lr"] = [(epoch, rate) for epoch, (_, rate) in zip(epochs.tolist(), rates, strict=True)]
    return History(int(max(ends.values())), max(ends), series)
