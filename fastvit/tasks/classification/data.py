"""Batches for training and evaluating a classifier."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor
from torch.utils.data import DataLoader

from fastvit.data.augmentation import Augmentation
from fastvit.data.datasets import ImageDataset, LabeledImages, samples_for_evaluation
from fastvit.data.load import open_for_training
from fastvit.data.module import RunData, RunImages
from fastvit.data.sampling import EvaluationShare, ShardBatches, ShardShare, TrainBatches
from fastvit.data.shards import WINDOW, ShardImages
from fastvit.data.splitting import Part, write_split
from fastvit.data.transforms import train_pixels
from fastvit.data.workers import worker_count
from fastvit.errors import UserError
from fastvit.model.preprocessing import Preprocessing

Batches = DataLoader[tuple[Tensor, int]]


def open_for_run(source: str, val_fraction: float = 0.0, seed: int = 0, split_file: Path | None = None) -> RunImages:
    """Open the training and validation images of a run.

    Args:
        source: data source, see `fastvit.data.load.open_for_training`.
        val_fraction: share of the training images of each class to validate on; 0 uses the validation split of the
            data.
        seed: seed of the random split.
        split_file: CSV file of an earlier split to use again; None for a new one.

    Raises:
        UserError: the data cannot be opened, or have only one class.
    """
    images = RunImages(*open_for_training(source, val_fraction, seed, split_file))
    if len(images.classes) < 2:
        raise UserError(
            f"{source} has one class ({images.classes[0]}); a classifier needs two or more: add class folders"
        )
    return images


class ClassificationData(RunData):
    """Batches of labeled images, ((B, C, H, W) uint8, (B,) int64), distributed among the processes.

    Args:
        images: training and validation images, from `open_for_run`.
        preprocessing: preprocessing that the model expects.
        batch_size: images per step and process.
        augmentation: augmentation of the training images; None for the defaults.
        others: other arguments of `RunData`.
    """

    train_images: LabeledImages
    test_images: LabeledImages

    def __init__(
        self,
        images: RunImages,
        preprocessing: Preprocessing,
        batch_size: int,
        augmentation: Augmentation | None = None,
        **others: Any,
    ) -> None:
        super().__init__(images, preprocessing, batch_size, **others)
        self.augmentation = augmentation or Augmentation()

    def write_split(self, file: Path) -> None:
        if isinstance(self.test_images, Part):
            write_split(file, self.test_images)

    def train_dataloader(self) -> Batches:
        pixels = train_pixels(self.preprocessing, self.augmentation)
        return self.train_loader(ImageDataset(self.train_images, pixels, self.unreadable_log))

    def train_batches(self) -> TrainBatches:
        if isinstance(self.train_images, ShardImages):
            lengths, workers = self.train_images.lengths, worker_count(self.num_workers)
            return ShardBatches(
                lengths, self.batch_size, self.seed, WINDOW, workers, *self.process, **self.resume_state
            )
        return super().train_batches()

    def val_dataloader(self) -> Batches:
        samples = samples_for_evaluation(self.test_images, self.preprocessing, self.skip_unreadable)
        return self.val_loader(samples, self.batch_size)

    def val_share(self) -> EvaluationShare:
        if isinstance(self.test_images, ShardImages):
            return ShardShare(len(self.test_images), self.batch_size, worker_count(self.num_workers), *self.process)
        return super().val_share()

    def sampler_fingerprint(self) -> dict[str, int]:
        found = super().sampler_fingerprint()
        if isinstance(self.train_images, ShardImages):
            found["num_workers"] = max(worker_count(self.num_workers), 1)
        return found
