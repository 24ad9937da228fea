"""Batches for training and evaluating a classifier."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor
from torch.utils.data import DataLoader

from fastvit.data.augmentation import Augmentation
from fastvit.data.datasets import ImageDataset, LabelledImages
from fastvit.data.module import RunData
from fastvit.data.opening import open_for_training
from fastvit.data.sampling import EvaluationShare, ShardBatches, ShardShare, TrainBatches
from fastvit.data.shards import WINDOW, ShardImages
from fastvit.data.splitting import Part, write_split
from fastvit.data.transforms import eval_pixels, train_pixels
from fastvit.data.workers import loader_settings, worker_count
from fastvit.errors import UserError
from fastvit.model.preprocessing import Preprocessing

Batches = DataLoader[tuple[Tensor, int]]


class ClassificationData(RunData):
    """A source of labelled images as batches of ((B, C, H, W) uint8, (B,) int64), shared out among the processes.

    Args:
        source: as in `fastvit.data.opening.open_images`.
        batch_size: images a step.
        augmentation: of the training images.
        workers: processes that decode images; 0 decodes in the training process, None takes one a core but one.
        preprocessing: what the model expects; may be set until batches are asked for.
        seed: of order, augmentation and split.
        val_fraction: of the training images to validate on, as in `fastvit.data.opening.open_for_training`.
        split_file: where that split was written down, of a run that goes on.
        allow_damaged: leave validation images out that cannot be decoded, with a warning, where they are an error.
    """

    train_images: LabelledImages
    test_images: LabelledImages

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
        train_images, test_images = open_for_training(source, val_fraction, seed, split_file)
        super().__init__(train_images, test_images, batch_size, workers, preprocessing, seed, allow_damaged)
        if len(self.classes) < 2:
            raise UserError(f"{source} has one class ({self.classes[0]}); a classifier needs two: one folder a class")
        self.augmentation = augmentation or Augmentation()

    def write_split(self, file: Path) -> None:
        if isinstance(self.test_images, Part):
            write_split(file, self.test_images)

    def train_dataloader(self) -> Batches:
        pixels = train_pixels(self.preprocessing, self.augmentation)
        return self.train_loader(ImageDataset(self.train_images, pixels, self.damage_log))

    def train_batches(self) -> TrainBatches:
        if isinstance(self.train_images, ShardImages):
            lengths, workers = self.train_images.lengths, worker_count(self.workers)
            return ShardBatches(lengths, self.batch_size, self.seed, WINDOW, workers, *self.process, **self.place)
        return super().train_batches()

    def val_dataloader(self) -> Batches:
        length, process = len(self.test_images), self.process
        share = (
            ShardShare(length, self.batch_size, worker_count(self.workers), *process)
            if isinstance(self.test_images, ShardImages)
            else EvaluationShare(length, *process)
        )
        return evaluation_loader(
            self.test_images, self.preprocessing, self.batch_size, self.workers, share, self.allow_damaged
        )

    def making(self) -> dict[str, int]:
        making = super().making()
        if isinstance(self.train_images, ShardImages):
            making["workers"] = max(worker_count(self.workers), 1)
        return making


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
