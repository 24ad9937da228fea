"""Report unreadable (corrupt) training images, and end the run if there are too many."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import lightning as L
import torch.distributed

from fastvit.console import counted, one_line
from fastvit.errors import UserError
from fastvit.files import write_text


class UnreadableImages(L.Callback):
    """Warning at the end of each epoch about unreadable training images, which were replaced by others.

    The datamodule of the trainer has them in `unreadable`, a dictionary of the reasons by name. Each process counts its
    own images; at the end of an epoch all processes exchange their lists.

    Args:
        limit: largest number of different unreadable images; one more ends the run.
        file: file for the list of all unreadable images with the reasons.

    Raises:
        UserError: the limit is negative.
    """

    def __init__(self, limit: int, file: Path) -> None:
        if limit < 0:
            raise UserError(f"max_unreadable must be at least 0, got {limit}")
        self.limit, self.file = limit, file
        self._found: dict[str, str] = {}

    def on_train_batch_end(self, trainer: L.Trainer, *rest: Any) -> None:
        self._found.update(trainer.datamodule.unreadable)
        self._check()

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.world_size > 1:
            everywhere: list[dict[str, str]] = [{}] * trainer.world_size
            torch.distributed.all_gather_object(everywhere, self._found)
            for found in everywhere:
                self._found.update(found)
        self._check()
        if self._found and trainer.is_global_zero:
            self._write()
            images = counted(len(self._found), "unreadable training image")
            warnings.warn(
                f"{images} replaced up to epoch {trainer.current_epoch + 1}: {self._first()} (listed in {self.file})",
                stacklevel=1,
            )

    def state_dict(self) -> dict[str, Any]:
        return {"found": dict(self._found)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._found = dict(state_dict["found"])

    def _check(self) -> None:
        if len(self._found) > self.limit:
            self._write()
            raise UserError(
                f"{counted(len(self._found), 'unreadable training image')}, more than max_unreadable ({self.limit}): "
                f"{self._first()}; repair or remove those listed in {self.file}, or raise max_unreadable"
            )

    def _first(self) -> str:
        return ", ".join(list(self._found)[:5]) + (", ..." if len(self._found) > 5 else "")

    def _write(self) -> None:
        write_text(
            self.file, "".join(f"{one_line(name)}\t{one_line(reason)}\n" for name, reason in self._found.items())
        )
