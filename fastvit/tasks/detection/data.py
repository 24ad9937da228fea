"""Batches for training and evaluating a detector."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from fastvit.data.datasets import ImageSource, Samples
from fastvit.data.module import RunData, RunImages
from fastvit.data.sampling import TrainBatches
from fastvit.data.transforms import eval_pixels
from fastvit.errors import UserError
from fastvit.model.preprocessing import Preprocessing
from fastvit.tasks.detection.coco import CocoImages, Objects, open_coco
from fastvit.tasks.detection.metrics import UNCOUNTED
from fastvit.tasks.detection.options import DetectionOptions
from fastvit.tasks.detection.sampling import GroupedBatches
from fastvit.tasks.detection.transforms import TrainTransform

Target = dict[str, Tensor]
Sample = tuple[Tensor, Target]
Batches = DataLoader[Sample]
# Side in pixels of a padding sample, which no metric counts.
_UNCOUNTED_SIDE = 32


class AnnotatedImages(ImageSource, Protocol):
    """Images with ground-truth objects, before any transform."""

    @property
    def ids(self) -> np.ndarray:
        """(n,) int64, ids of the images."""
        ...

    def targets(self, index: int) -> Objects:
        """Return the objects of an image."""
        ...


class DetectionSamples(Samples[Sample]):
    """Samples of (C, h, w) uint8 images with a dictionary of their objects.

    For training, images are augmented, and targets are in pixels of the augmented image: "boxes" (N, 4) float32, left,
    top, right, bottom; "labels" (N,) int64; with `masks`, "masks" (N, h, w) uint8. Crowds are left out.

    For evaluation, targets are in pixels of the original image (H, W). They include crowds, and also "iscrowd" (N,)
    int64, "area" (N,) float32, "image_id" int64 and "size" (2,) int64, H and W. A padding sample has the id UNCOUNTED.

    Args:
        pictures: source of images and objects.
        preprocessing: number of channels, and size and resizing of evaluation images.
        masks: include masks in the targets.
        options: options of training; None for evaluation only.
        unreadable_log: file that lists unreadable training images, see `Samples`.
        skip_unreadable: replace an unreadable evaluation image by a padding sample, with a warning.
    """

    pictures: AnnotatedImages

    def __init__(
        self,
        pictures: AnnotatedImages,
        preprocessing: Preprocessing,
        masks: bool,
        options: DetectionOptions | None = None,
        unreadable_log: Path | None = None,
        skip_unreadable: bool = False,
    ) -> None:
        super().__init__(pictures, unreadable_log, skip_unreadable)
        self.masks = masks
        self._channels = len(preprocessing.mean)
        self._pixels = eval_pixels(preprocessing)
        self._vary = TrainTransform(options, preprocessing) if options else None

    def item(self, index: int, varied: bool) -> Sample:
        image, objects = self.pictures.image(index), self.pictures.targets(index)
        if self._channels == 1:
            image = image.convert("L")
        if varied:
            if self._vary is None:
                raise ValueError("these samples are for evaluation only: pass `options` to train")
            return self._vary(image, self._target(objects.where(~objects.crowd)))
        return self._pixels(image), {
            **self._target(objects),
            "iscrowd": torch.from_numpy(objects.crowd.astype(np.int64)),
            "area": torch.from_numpy(objects.areas.astype(np.float32)),
            "image_id": torch.tensor(int(self.pictures.ids[index])),
            "size": torch.tensor(objects.size),
        }

    def _target(self, objects: Objects) -> Target:
        target = {"boxes": torch.tensor(objects.boxes), "labels": torch.tensor(objects.labels)}
        if self.masks:
            target["masks"] = torch.from_numpy(objects.masks())
        return target

    def padding_sample(self) -> Sample:
        side = _UNCOUNTED_SIDE
        target = {
            "boxes": torch.zeros(0, 4),
            "labels": torch.zeros(0, dtype=torch.int64),
            "iscrowd": torch.zeros(0, dtype=torch.int64),
            "area": torch.zeros(0),
            "image_id": torch.tensor(UNCOUNTED),
            "size": torch.tensor((side, side)),
        }
        if self.masks:
            target["masks"] = torch.zeros(0, side, side, dtype=torch.uint8)
        return torch.zeros(self._channels, side, side, dtype=torch.uint8), target


def collate(items: list[Sample]) -> tuple[list[Tensor], list[Target]]:
    """Return a batch of images of different sizes: a list of images, and a list of their targets."""
    return [image for image, _ in items], [target for _, target in items]


def open_for_run(source: str | Path, masks: bool = True) -> RunImages:
    """Open the training and validation images of a run.

    Args:
        source: folder with data in COCO's format, see `fastvit.tasks.detection.coco.open_coco`.
        masks: read masks, for a network that predicts them.

    Raises:
        UserError: a split cannot be opened, or no training image has an object.
    """
    train = open_coco(source, "train", masks=masks)
    images = RunImages(train, open_coco(source, "test", train.classes, masks))
    if not any(len(train.targets(index)) for index in range(len(train))):
        raise UserError(f"no training image of {source} has an object: check the annotations of the training split")
    return images


class DetectionData(RunData):
    """Batches of a folder in COCO's format, with images of different sizes, distributed among the processes.

    A batch is the result of `collate` on DetectionSamples. The classes are those of the training images.

    Args:
        images: training and validation images, from `open_for_run`.
        preprocessing: preprocessing that the model expects.
        batch_size: images per step and process.
        options: options of training; targets have masks if the network in them predicts masks.
        others: other arguments of `RunData`.
    """

    train_images: CocoImages
    test_images: CocoImages

    def __init__(
        self,
        images: RunImages,
        preprocessing: Preprocessing,
        batch_size: int,
        options: DetectionOptions | None = None,
        **others: Any,
    ) -> None:
        super().__init__(images, preprocessing, batch_size, **others)
        self.options = options or DetectionOptions()

    def train_dataloader(self) -> Batches:
        masks = self.options.network.masks
        samples = DetectionSamples(self.train_images, self.preprocessing, masks, self.options, self.unreadable_log)
        return self.train_loader(samples, collate)

    def train_batches(self) -> TrainBatches:
        if not self.options.group_by_aspect_ratio:
            return super().train_batches()
        return GroupedBatches(self.train_images.sizes, self.batch_size, self.seed, *self.process, **self.resume_state)

    def val_dataloader(self) -> Batches:
        masks = self.options.network.masks
        samples = DetectionSamples(self.test_images, self.preprocessing, masks, skip_unreadable=self.skip_unreadable)
        return self.val_loader(samples, self.batch_size, collate)

    def sampler_fingerprint(self) -> dict[str, int]:
        return {**super().sampler_fingerprint(), "group_by_aspect_ratio": int(self.options.group_by_aspect_ratio)}
