"""The data of a run, whatever the task: batches shared out among processes, and the place in the run."""

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
    """The images of a run, opened.

    Attributes:
        train: to train on; their classes are the run's.
        val: to validate on.
    """

    train: Any
    val: Any

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes."""
        names: tuple[str, ...] = self.train.classes
        return names


class RunData(L.LightningDataModule):
    """What a task's data module builds on.

    Its state is the place in the run, so that one that was interrupted goes on with the images it has not seen. Inside
    an epoch the place is a number of batches, which must then be made as they were.

    Args:
        images: to train and to validate on.
        preprocessing: what the model expects.
        batch_size: images a step.
        num_workers: processes that decode images; 0 decodes in the training process, None takes one a core but one.
        seed: of order and augmentation.
        skip_unreadable: leave out validation images that cannot be decoded, with a warning, instead of raising an
            error.

    Attributes:
        unreadable_log: where the workers note training images that they could not decode.
        place: the epoch to begin with, and the batches of it that have been trained on.
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
        return self.train_images.classes

    def write_split(self, file: Path) -> None:
        """Write down which images are held out, if the data did not come with a validation part."""

    @property
    def unreadable(self) -> dict[str, str]:
        """Training images that this process and its workers could not decode up to now: reason by name."""
        return self._unreadable_log.read()

    @property
    def process(self) -> tuple[int, int]:
        """Rank of this process, and how many there are."""
        return (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)

    def train_loader(self, dataset: Dataset[Any], collate: Callable[[list[Any]], Any] | None = None) -> DataLoader[Any]:
        """Batches of the training images from the place on.

        Raises:
            UserError: there are too few images.
        """
        images, (_, processes) = len(self.train_images), self.process
        if images < 2 * processes:
            raise UserError(f"{images} training images are too few for {processes} processes: each needs two a step")
        settings = loader_settings(self.num_workers)
        return DataLoader(dataset, batch_sampler=self.train_batches(), collate_fn=collate, **settings)

    def val_loader(
        self, dataset: Dataset[Any], batch_size: int, collate: Callable[[list[Any]], Any] | None = None
    ) -> DataLoader[Any]:
        """Batches of this process's share of the validation images."""
        return evaluation_loader(dataset, batch_size, self.num_workers, self.val_share(), collate)

    def val_share(self) -> EvaluationShare:
        """Which validation images this process measures on."""
        return EvaluationShare(len(self.test_images), *self.process)

    def train_batches(self) -> TrainBatches:
        """Which images make each batch."""
        return TrainBatches(len(self.train_images), self.batch_size, self.seed, *self.process, **self.resume_state)

    def state_dict(self) -> dict[str, Any]:
        if self.trainer is None:
            return {**self.resume_state, "batches": self.sampler_fingerprint()}
        loop = self.trainer.fit_loop
        batches = loop.epoch_loop.batch_progress
        done = 0 if batches.is_last_batch else batches.current.processed
        return {"epoch": loop.epoch_progress.current.processed, "start": done, "batches": self.sampler_fingerprint()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a place in a run.

        Raises:
            UserError: it is inside an epoch whose batches would be others now.
        """
        self.resume_state = {name: state_dict[name] for name in ("epoch", "start")}
        if not self.resume_state["start"]:
            return
        made, now = renamed_batches(state_dict["batches"]), self.sampler_fingerprint()
        if made != now:
            raise UserError(
                f"the run was ended inside epoch {self.resume_state['epoch'] + 1}, whose batches were made with "
                f"{_listed(made)}; now it would be {_listed(now)}: go on as it began"
            )

    def sampler_fingerprint(self) -> dict[str, int]:
        """Return what decides which images are in a batch."""
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
        dataset: samples made for evaluation; see `fastvit.data.datasets.Samples` for images that cannot be decoded.
        batch_size: samples a batch, 1 or more.
        num_workers: processes that decode images; 0 decodes in this process, None takes one a core but one.
        share: of a process; None for all samples.
        collate: a list of samples -> a batch; None stacks them.

    Raises:
        UserError: batch_size is below 1, or num_workers below 0.
    """
    if batch_size < 1:
        raise UserError(f"batch_size must be at least 1, got {batch_size}")
    return DataLoader(dataset, batch_size, sampler=share, collate_fn=collate, **loader_settings(num_workers))


def _listed(fingerprint: dict[str, int]) -> str:
    return ", ".join(f"{name} {value}" for name, value in fingerprint.items())
