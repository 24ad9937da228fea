"""Data module of a run, for all tasks: batches for each process, and the state to resume from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning as L
from torch.utils.data import DataLoader, Dataset

from fastvit.data.datasets import ImageSource
from fastvit.data.sampling import EvaluationShare, TrainBatches
from fastvit.data.unreadable import UnreadableLog
from fastvit.data.workers import loader_settings
from fastvit.errors import UserError
from fastvit.model.preprocessing import Preprocessing
from fastvit.renames import renamed_batches


@dataclass(frozen=True)
class RunImages:
    """Training and validation images of a run.

    Attributes:
        train: training images; their classes are those of the run.
        val: validation images.
    """

    train: Any
    val: Any

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names."""
        names: tuple[str, ...] = self.train.classes
        return names


class RunData(L.LightningDataModule):
    """Base class of the tasks' data modules.

    Its state is the position in the run, so that an interrupted run resumes with the images that it has not used.
    Within an epoch the position is a number of batches, so the batches must then be composed as before.

    Args:
        images: training and validation images.
        preprocessing: preprocessing of the model.
        batch_size: images per training step and process.
        num_workers: processes that decode images; 0 decodes in the training process, None uses one per CPU core but
            one.
        seed: seed of the order and the augmentation of the training images.
        skip_unreadable: leave out unreadable validation images with a warning, instead of raising an error.

    Attributes:
        unreadable_log: file in which the workers list unreadable training images.
        resume_state: "epoch" to start with, from 0, and "start", the number of its batches to skip.
    """

    def __init__(
        self,
        images: RunImages,
        preprocessing: Preprocessing,
        batch_size: int,
        *,
        num_workers: int | None = None,
        seed: int = 0,
        skip_unreadable: bool = False,
    ) -> None:
        super().__init__()
        self.train_images: ImageSource = images.train
        self.test_images: ImageSource = images.val
        self.preprocessing = preprocessing
        self.batch_size, self.num_workers, self.seed = batch_size, num_workers, seed
        self.skip_unreadable = skip_unreadable
        self.unreadable_log = (log := UnreadableLog()).path
        self._unreadable_log = log
        self.resume_state = {"epoch": 0, "start": 0}

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names."""
        return self.train_images.classes

    def write_split(self, file: Path) -> None:
        """Write the split to a CSV file, if the validation images were split off from the training images."""

    @property
    def unreadable(self) -> dict[str, str]:
        """Unreadable training images of this process and its workers up to now: name -> reason."""
        return self._unreadable_log.read()

    @property
    def process(self) -> tuple[int, int]:
        """Rank of this process, and the number of processes."""
        return (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)

    def train_loader(self, dataset: Dataset[Any], collate: Callable[[list[Any]], Any] | None = None) -> DataLoader[Any]:
        """Return batches of the training images, from the position in `resume_state` on.

        Raises:
            UserError: there are fewer than two images for each process.
        """
        images, (_, processes) = len(self.train_images), self.process
        if images < 2 * processes:
            raise UserError(f"{images} training images are too few for {processes} processes: each needs at least 2")
        settings = loader_settings(self.num_workers)
        return DataLoader(dataset, batch_sampler=self.train_batches(), collate_fn=collate, **settings)

    def val_loader(
        self, dataset: Dataset[Any], batch_size: int, collate: Callable[[list[Any]], Any] | None = None
    ) -> DataLoader[Any]:
        """Return batches of this process's share of the validation images.

        Args:
            dataset: samples prepared for evaluation.
            batch_size: images per batch.
            collate: function from a list of samples to a batch; None stacks them.
        """
        return evaluation_loader(dataset, batch_size, self.num_workers, self.val_share(), collate)

    def val_share(self) -> EvaluationShare:
        """Return the indices of the validation images of this process."""
        return EvaluationShare(len(self.test_images), *self.process)

    def train_batches(self) -> TrainBatches:
        """Return the sampler of the training batches, from the position in `resume_state` on."""
        return TrainBatches(len(self.train_images), self.batch_size, self.seed, *self.process, **self.resume_state)

    def state_dict(self) -> dict[str, Any]:
        if self.trainer is None:
            return {**self.resume_state, "batches": self.sampler_fingerprint()}
        loop = self.trainer.fit_loop
        batches = loop.epoch_loop.batch_progress
        done = 0 if batches.is_last_batch else batches.current.processed
        return {"epoch": loop.epoch_progress.current.processed, "start": done, "batches": self.sampler_fingerprint()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Set the position in the run to resume from.

        Raises:
            UserError: the position is within an epoch, and the batches would now be composed differently.
        """
        self.resume_state = {name: state_dict[name] for name in ("epoch", "start")}
        if not self.resume_state["start"]:
            return
        made, now = renamed_batches(state_dict["batches"]), self.sampler_fingerprint()
        if made != now:
            raise UserError(
                f"the run stopped within epoch {self.resume_state['epoch'] + 1}, whose batches were composed with "
                f"{_listed(made)}; now they would be composed with {_listed(now)}: resume with the same settings"
            )

    def sampler_fingerprint(self) -> dict[str, int]:
        """Return the settings that determine which images are in a batch."""
        images, processes = len(self.train_images), self.process[1]
        return {"batch_size": self.batch_size, "processes": processes, "images": images, "seed": self.seed}


def evaluation_loader(
    dataset: Dataset[Any],
    batch_size: int,
    num_workers: int | None = None,
    share: EvaluationShare | None = None,
    collate: Callable[[list[Any]], Any] | None = None,
) -> DataLoader[Any]:
    """Return batches of all samples in order, or of a process's share of them.

    Args:
        dataset: samples prepared for evaluation; see `fastvit.data.datasets.Samples` for unreadable images.
        batch_size: samples per batch, at least 1.
        num_workers: processes that decode images; 0 decodes in this process, None uses one per CPU core but one.
        share: indices of one process's samples; None for all samples.
        collate: function from a list of samples to a batch; None stacks them.

    Raises:
        UserError: batch_size is below 1, or num_workers below 0.
    """
    if batch_size < 1:
        raise UserError(f"batch_size must be at least 1, got {batch_size}")
    return DataLoader(dataset, batch_size, sampler=share, collate_fn=collate, **loader_settings(num_workers))


def _listed(fingerprint: dict[str, int]) -> str:
    return ", ".join(f"{name} {value}" for name, value in fingerprint.items())
