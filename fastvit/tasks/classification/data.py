"""Batches for training and evaluating a classifier."""

from __future__ import annotations

import os
from collections.abc import Sequence

import lightning as L
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from fastvit.data.augmentation import Augmentation
from fastvit.data.datasets import PictureDataset, Pictures, open_pictures
from fastvit.data.transforms import eval_transform, train_transform
from fastvit.model.preprocessing import Preprocessing

Batches = DataLoader[tuple[Tensor, int]]


class ClassificationData(L.LightningDataModule):
    """A source of labelled images as batches of ((B, C, H, W) float32, (B,) int64).

    Args:
        source: as in `fastvit.data.datasets.open_pictures`.
        preprocessing: what the model expects.
        batch_size: images a step.
        augmentation: of the training images.
        workers: processes that decode images; 0 decodes in the training process, None takes one a core but one.
        classes: names that the data must have; by default its own.
    """

    def __init__(
        self,
        source: str,
        preprocessing: Preprocessing,
        batch_size: int,
        augmentation: Augmentation | None = None,
        workers: int | None = None,
        classes: Sequence[str] | None = None,
    ) -> None:
        super().__init__()
        self.train_pictures: Pictures = open_pictures(source, "train", classes)
        self.test_pictures: Pictures = open_pictures(source, "test", self.train_pictures.classes)
        self.preprocessing = preprocessing
        self.batch_size = batch_size
        self.augmentation = augmentation or Augmentation()
        self.workers = workers

    @property
    def classes(self) -> tuple[str, ...]:
        return self.train_pictures.classes

    def train_dataloader(self) -> Batches:
        dataset = PictureDataset(self.train_pictures, train_transform(self.preprocessing, self.augmentation))
        # A last batch of one image has no batch statistics; drop it unless it is all there is.
        whole = len(dataset) > self.batch_size
        return loader(dataset, self.batch_size, self.workers, shuffle=True, drop_last=whole)

    def val_dataloader(self) -> Batches:
        return evaluation_loader(self.test_pictures, self.preprocessing, self.batch_size, self.workers)


def evaluation_loader(
    pictures: Pictures, preprocessing: Preprocessing, batch_size: int = 64, workers: int | None = None
) -> Batches:
    """Batches of all images in order, transformed for evaluation."""
    return loader(PictureDataset(pictures, eval_transform(preprocessing)), batch_size, workers)


def loader(
    dataset: PictureDataset, batch_size: int, workers: int | None, shuffle: bool = False, drop_last: bool = False
) -> Batches:
    """A DataLoader with the settings that all our loaders share."""
    count = max((os.cpu_count() or 1) - 1, 0) if workers is None else workers
    return DataLoader(
        dataset,
        batch_size,
        shuffle=shuffle,
        num_workers=count,
        drop_last=drop_last,
        persistent_workers=count > 0,
        pin_memory=torch.cuda.is_available(),
    )
