"""Batches for training and evaluating a classifier."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning as L
from torch import Tensor
from torch.utils.data import DataLoader

from fastvit.data.augmentation import Augmentation
from fastvit.data.damaged import DamageLog
from fastvit.data.datasets import ImageDataset, LabelledImages
from fastvit.data.opening import open_for_training
from fastvit.data.sampling import EvaluationShare, ShardBatches, ShardShare, TrainBatches
from fastvit.data.shards import WINDOW, ShardImages
from fastvit.data.splitting import Part, write_split
from fastvit.data.transforms import eval_pixels, train_pixels
from fastvit.data.workers import loader_settings, worker_count
from fastvit.errors import UserError
from fastvit.model.preprocessing import Preprocessing

Batches = DataLoader[tuple[Tensor, int]]


class ClassificationData(L.LightningDataModule):
    """A source of labelled images as batches of ((B, C, H, W) uint8, (B,) int64), shared out among the processes.

    Its state is the place in the run, so that one that was interrupted goes on with the images it has not seen. Inside
    an epoch the place is a number of batches, which must then be made as they were.

    Args:
        source: as in `fastvit.data.opening.open_images`.
        batch_size: images a step.
        augmentation: of the training images.
        workers: processes that decode images; 0 decodes in the training process, None takes one a core but one.
        preprocessing: what the model expects; may be set until batches are asked for.
        seed: of order, augmentation and split.
        val_fraction: of the training images to validate on, as in `fastvit.data.opening.open_for_training`.
        split_file: where that split was written down.
        allow_damaged: leave validation images out that cannot be decoded, with a warning, where they are an error.
    """

    def __init__(
        self,
        source: str,
        batch_size: int,
        augmentation: Augmentation | None = None,
        workers: int | None = None,
        preprocessing: Preprocessing | None = None,
        seed: int = 0,
        val_fraction: float = 0.0,
        split_file: Path | None = None,
        allow_damaged: bool = False,
    ) -> None:
        super().__init__()
        self.train_images, self.test_images = open_for_training(source, val_fraction, seed, split_file)
        if len(self.classes) < 2:
            raise UserError(f"{source} has one class ({self.classes[0]}); a classifier needs two: one folder a class")
        self.preprocessing = preprocessing or Preprocessing()
        self.batch_size = batch_size
        self.augmentation = augmentation or Augmentation()
        self.workers = workers
        self.seed = seed
        self.allow_damaged = allow_damaged
        self._damage = DamageLog()
        self._place = {"epoch": 0, "start": 0}

    @property
    def classes(self) -> tuple[str, ...]:
        return self.train_images.classes

    def write_split(self, file: Path) -> None:
        """Write down which images are held out, if the data did not come with a validation part."""
        if isinstance(self.test_images, Part):
            write_split(file, self.test_images)

    @property
    def damaged(self) -> dict[str, str]:
        """Training images that this process and its workers could not decode up to now: reason by name."""
        return self._damage.read()

    def train_dataloader(self) -> Batches:
        pixels = train_pixels(self.preprocessing, self.augmentation)
        dataset = ImageDataset(self.train_images, pixels, self._damage.path)
        _, processes = self._process()
        if len(dataset) < 2 * processes:
            raise UserError(
                f"{len(dataset)} training images are too few for {processes} processes: each needs two a step"
            )
        return DataLoader(dataset, batch_sampler=self._train_batches(), **loader_settings(self.workers))

    def _train_batches(self) -> TrainBatches:
        process = self._process()
        if isinstance(self.train_images, ShardImages):
            lengths, workers = self.train_images.lengths, worker_count(self.workers)
            return ShardBatches(lengths, self.batch_size, self.seed, WINDOW, workers, *process, **self._place)
        return TrainBatches(len(self.train_images), self.batch_size, self.seed, *process, **self._place)

    def val_dataloader(self) -> Batches:
        length, process = len(self.test_images), self._process()
        share = (
            ShardShare(length, self.batch_size, worker_count(self.workers), *process)
            if isinstance(self.test_images, ShardImages)
            else EvaluationShare(length, *process)
        )
        return evaluation_loader(
            self.test_images, self.preprocessing, self.batch_size, self.workers, share, self.allow_damaged
        )

    def _process(self) -> tuple[int, int]:
        """Rank of this process, and how many there are."""
        return (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)

    def state_dict(self) -> dict[str, Any]:
        if self.trainer is None:
            return {**self._place, "batches": self._making()}
        loop = self.trainer.fit_loop
        batches = loop.epoch_loop.batch_progress
        done = 0 if batches.is_last_batch else batches.current.processed
        return {"epoch": loop.epoch_progress.current.processed, "start": done, "batches": self._making()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a place in a run.

        Raises:
            UserError: it is inside an epoch whose batches would be others now.
        """
        self._place = {name: state_dict[name] for name in ("epoch", "start")}
        if self._place["start"] and (made := state_dict["batches"]) != (making := self._making()):
            raise UserError(
                f"the run was ended inside epoch {self._place['epoch'] + 1}, whose batches were made with "
                f"{_listed(made)}; now it would be {_listed(making)}: go on as it began"
            )

    def _making(self) -> dict[str, int]:
        """What it depends on which images are in a batch."""
        making = {"batch_size": self.batch_size, "processes": self._process()[1], "images": len(self.train_images)}
        making["seed"] = self.seed
        if isinstance(self.train_images, ShardImages):
            making["workers"] = max(worker_count(self.workers), 1)
        return making


def _listed(making: dict[str, int]) -> str:
    return ", ".join(f"{name} {value}" for name, value in making.items())


def evaluation_loader(
    pictures: LabelledImages,
    preprocessing: Preprocessing,
    batch_size: int = 64,
    workers: int | None = None,
    share: EvaluationShare | None = None,
    allow_damaged: bool = False,
) -> Batches:
    """Batches of all images in order, or of a process's share of them, as uint8 pixels resized for evaluation.

    An image that cannot be decoded raises a UserError or, with `allow_damaged`, is black and of the class IGNORED; a
    warning names it.

    Raises:
        UserError: batch_size or workers make no sense.
    """
    if batch_size < 1:
        raise UserError(f"batch_size must be at least 1, got {batch_size}")
    dataset = ImageDataset(pictures, eval_pixels(preprocessing), allow_damaged=allow_damaged)
    return DataLoader(dataset, batch_size, sampler=share, **loader_settings(workers))
