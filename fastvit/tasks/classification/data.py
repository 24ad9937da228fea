"""Batches for training and evaluating a classifier."""

from __future__ import annotations

import os

import lightning as L
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from fastvit.data.augmentation import Augmentation
from fastvit.data.datasets import ImageDataset, LabelledImages, open_images
from fastvit.data.transforms import eval_transform, train_transform
from fastvit.errors import UserError
from fastvit.model.preprocessing import Preprocessing

Batches = DataLoader[tuple[Tensor, int]]


class ClassificationData(L.LightningDataModule):
    """A source of labelled images as batches of ((B, C, H, W) float32, (B,) int64).

    Args:
        source: as in `fastvit.data.datasets.open_images`.
        batch_size: images a step.
        augmentation: of the training images.
        workers: processes that decode images; 0 decodes in the training process, None takes one a core but one.
        preprocessing: what the model expects; may be set until batches are asked for.
    """

    def __init__(
        self,
        source: str,
        batch_size: int,
        augmentation: Augmentation | None = None,
        workers: int | None = None,
        preprocessing: Preprocessing | None = None,
    ) -> None:
        super().__init__()
        self.train_images: LabelledImages = open_images(source, "train")
        self.test_images: LabelledImages = open_images(source, "test", self.train_images.classes)
        if len(self.classes) < 2:
            raise UserError(f"{source} has one class ({self.classes[0]}); a classifier needs two: one folder a class")
        self.preprocessing = preprocessing or Preprocessing()
        self.batch_size = batch_size
        self.augmentation = augmentation or Augmentation()
        self.workers = workers

    @property
    def classes(self) -> tuple[str, ...]:
        return self.train_images.classes

    def train_dataloader(self) -> Batches:
        dataset = ImageDataset(self.train_images, train_transform(self.preprocessing, self.augmentation))
        # A last batch of one image has no batch statistics; drop it unless it is all there is.
        whole = len(dataset) > self.batch_size
        return loader(dataset, self.batch_size, self.workers, shuffle=True, drop_last=whole)

    def val_dataloader(self) -> Batches:
        return evaluation_loader(self.test_images, self.preprocessing, self.batch_size, self.workers)


def evaluation_loader(
    pictures: LabelledImages, preprocessing: Preprocessing, batch_size: int = 64, workers: int | None = None
) -> Batches:
    """Batches of all images in order, transformed for evaluation."""
    return loader(ImageDataset(pictures, eval_transform(preprocessing)), batch_size, workers)


def available_cores() -> int:
    """Cores that this process may use, which can be fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def loader(
    dataset: ImageDataset, batch_size: int, workers: int | None, shuffle: bool = False, drop_last: bool = False
) -> Batches:
    """A DataLoader with the settings that all our loaders share."""
    if batch_size < 1 or (workers or 0) < 0:
        raise UserError(f"batch_size must be at least 1 and workers at least 0, got {batch_size} and {workers}")
    count = available_cores() - 1 if workers is None else workers
    return DataLoader(
        dataset,
        batch_size,
        shuffle=shuffle,
        num_workers=count,
        drop_last=drop_last,
        persistent_workers=count > 0,
        pin_memory=torch.cuda.is_available(),
    )
