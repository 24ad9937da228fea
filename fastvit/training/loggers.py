"""Loggers of a run: metrics.csv, TensorBoard, and optionally Weights & Biases."""

from __future__ import annotations

import csv
import importlib.util
from pathlib import Path

from lightning.fabric.loggers.logger import rank_zero_experiment
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger, WandbLogger
from lightning.pytorch.loggers.csv_logs import ExperimentWriter

from fastvit.errors import UserError
from fastvit.runs.files import HISTORY, TENSORBOARD


class _GoOn(ExperimentWriter):
    """Lightning's writer, but it appends to an existing file instead of deleting it."""

    def __init__(self, log_dir: str) -> None:
        super().__init__(log_dir)
        path = Path(log_dir) / HISTORY
        if path.exists():
            with path.open(newline="") as file:
                self.metrics_keys = list(csv.DictReader(file).fieldnames or ())

    def _check_log_dir_exists(self) -> None:
        """Do nothing: the folder exists, and so may the file."""

    def save(self) -> None:
        # Lightning would write the hyperparameters too: the run has its recipe.
        super(ExperimentWriter, self).save()


class MetricsFile(CSVLogger):
    """Logger that writes metrics.csv in the run's folder, and appends to it when the run is resumed.

    Args:
        out: folder of the run.
    """

    def __init__(self, out: Path) -> None:
        super().__init__(out, name="", version="")

    @property
    @rank_zero_experiment
    def experiment(self) -> ExperimentWriter:
        """Writer of the file."""
        self._experiment: ExperimentWriter | None
        if self._experiment is None:
            self._experiment = _GoOn(str(self.log_dir))
        return self._experiment

    def reopen(self) -> None:
        """Read the file again at the next write, because it was changed."""
        self._experiment = None


def make_loggers(out: Path, wandb: str | None) -> list[Logger]:
    """Return the loggers of a run.

    Args:
        out: folder of the run.
        wandb: project at Weights & Biases; None for none.

    Raises:
        UserError: a project is given, and wandb is not installed.
    """
    loggers: list[Logger] = [MetricsFile(out), TensorBoardLogger(out, name=TENSORBOARD, version="")]
    if wandb:
        if importlib.util.find_spec("wandb") is None:
            raise UserError(f"wandb={wandb} needs Weights & Biases: run pip install wandb, or leave it out")
        loggers.append(WandbLogger(project=wandb, name=out.name, save_dir=out))
    return loggers
