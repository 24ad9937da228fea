"""Where a run writes its numbers: metrics.csv, TensorBoard, and Weights & Biases where a project is named."""

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
    """Lightning's writer, which goes on with the file that is there instead of deleting it."""

    def __init__(self, log_dir: str) -> None:
        super().__init__(log_dir)
        path = Path(log_dir) / HISTORY
        if path.exists():
            with path.open(newline="") as file:
                self.metrics_keys = list(csv.DictReader(file).fieldnames or ())

    def _check_log_dir_exists(self) -> None:
        """It does; that is the point."""

    def save(self) -> None:
        # Not the hyperparameters, which Lightning would write beside it: the run has its recipe.
        super(ExperimentWriter, self).save()


class MetricsFile(CSVLogger):
    """metrics.csv in the run's folder, continued when the run is resumed."""

    def __init__(self, out: Path) -> None:
        super().__init__(out, name="", version="")

    @property
    @rank_zero_experiment
    def experiment(self) -> ExperimentWriter:
        self._experiment: ExperimentWriter | None
        if self._experiment is None:
            self._experiment = _GoOn(str(self.log_dir))
        return self._experiment

    def reopen(self) -> None:
        """Go on with the file as it is now, after it was changed."""
        self._experiment = None


def make_loggers(out: Path, wandb: str | None) -> list[Logger]:
    """The loggers of a run.

    Raises:
        UserError: Weights & Biases was asked for and is not installed.
    """
    loggers: list[Logger] = [MetricsFile(out), TensorBoardLogger(out, name=TENSORBOARD, version="")]
    if wandb:
        if importlib.util.find_spec("wandb") is None:
            raise UserError(f"wandb={wandb} needs Weights & Biases: pip install wandb, or leave it out")
        loggers.append(WandbLogger(project=wandb, name=out.name, save_dir=out))
    return loggers
