"""Checkpoints to resume from, written atomically, and the signals that stop a run."""

from __future__ import annotations

import csv
import pickle
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.plugins.io import TorchCheckpointIO

from fastvit.errors import UserError, first_line
from fastvit.files import atomic
from fastvit.renames import renamed_state
from fastvit.runs.files import HISTORY, STATE
from fastvit.training.callbacks import refuse_non_finite


class Terminated(Exception):  # noqa: N818 - it is not an error
    """The run was stopped by a signal, has saved its checkpoint, and can be resumed."""


class StopRequest:
    """Request to stop the run, by SIGTERM (sent by job schedulers) or SIGUSR1 (SLURM's early warning)."""

    signals = (signal.SIGTERM, signal.SIGUSR1)

    def __init__(self) -> None:
        self.received = False

    def listen(self) -> None:
        """Install the signal handlers; only possible in the main thread."""
        if threading.current_thread() is threading.main_thread():
            for number in self.signals:
                signal.signal(number, self._note)

    def _note(self, *_: object) -> None:
        self.received = True

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Install the signal handlers, and restore the previous ones afterwards."""
        before = {number: signal.getsignal(number) for number in self.signals}
        self.listen()
        try:
            yield
        finally:
            if threading.current_thread() is threading.main_thread():
                for number, handler in before.items():
                    signal.signal(number, handler)


class AtomicCheckpointIO(TorchCheckpointIO):
    """Checkpoint files that are written atomically: each is complete, and on the disk, or does not exist."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        with atomic(path) as part:
            try:
                torch.save(checkpoint, part)
            except RuntimeError as error:  # raised by torch's writer if the disk is full
                raise UserError(f"cannot write {path}: {first_line(error)}; the previous checkpoint is kept") from error

    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: bool | None = None) -> dict[str, Any]:
        try:
            state = torch.load(path, map_location=map_location or "cpu", weights_only=True)
        except (OSError, RuntimeError, EOFError, ValueError, pickle.UnpicklingError) as error:
            raise UserError(
                f"{path} is not a readable checkpoint ({first_line(error)}): delete it to start the run again"
            ) from error
        return renamed_state(state) if isinstance(state, dict) else state


class SaveState(Checkpoint):
    """Writer of last.ckpt: after every epoch, after a number of steps inside an epoch, and on a request to stop.

    Inside an epoch, the checkpoint is written only between two optimizer steps, and not after the last batch: the
    validation that follows is part of the epoch.

    Args:
        out: folder of the run.
        every: number of optimizer steps between checkpoints inside an epoch; 0 for none.
        request: request to stop, checked after every step; all processes stop together.
    """

    def __init__(self, out: Path, every: int, request: StopRequest) -> None:
        self.out, self.every, self.request = out, every, request

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        # Lightning has replaced our handlers by now; one of its own makes processes wait for each other.
        self.request.listen()

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        loop = trainer.fit_loop.epoch_loop
        if loop.batch_progress.is_last_batch or (batch_idx + 1) % trainer.accumulate_grad_batches:
            return
        end = self._told_to_end(trainer)
        if end or (self.every and trainer.global_step % self.every == 0):
            refuse_non_finite(trainer, pl_module, self.out / STATE)
            self._save(trainer)
        if end:
            raise Terminated(f"after step {trainer.global_step}")

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._save(trainer)
        if trainer.strategy.reduce_boolean_decision(self.request.received, all=False):
            raise Terminated(f"after epoch {trainer.current_epoch + 1}")

    def _told_to_end(self, trainer: L.Trainer) -> bool:
        if trainer.world_size == 1:
            return self.request.received
        # Communication takes time, so not after every step.
        every = trainer.global_step % 10 == 0
        return every and trainer.strategy.reduce_boolean_decision(self.request.received, all=False)

    def _save(self, trainer: L.Trainer) -> None:
        for logger in trainer.loggers:
            logger.save()
        trainer.save_checkpoint(self.out / STATE)

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        checkpoint["metrics_rows"] = len(read_rows(self.out / HISTORY)) if trainer.is_global_zero else 0


def read_rows(path: Path) -> list[dict[str, str]]:
    """Return the rows of a metrics.csv; none if the file does not exist."""
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def check_state(out: Path) -> None:
    """Check that last.ckpt of a run, if it exists, can be resumed from.

    Raises:
        UserError: it is corrupt, or was not written by fastvit train.
    """
    state = out / STATE
    if state.exists() and "metrics_rows" not in AtomicCheckpointIO().load_checkpoint(state):
        raise UserError(f"{state} was not written by fastvit train: delete it to start the run again")


def rewind_metrics(out: Path, count: int) -> None:
    """Remove from metrics.csv the rows that were logged after the last checkpoint: the resumed run logs them again.

    Args:
        out: folder of the run.
        count: number of rows when the checkpoint was written.
    """
    path = out / HISTORY
    rows = read_rows(path)[:count]
    if not rows:
        path.unlink(missing_ok=True)
        return
    with atomic(path) as part, part.open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows({name: row[name] for name in rows[0]} for row in rows)
