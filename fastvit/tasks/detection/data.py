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
# Side in pixels of an image that does not count.
_UNCOUNTED_SIDE = 32


class AnnotatedImages(ImageSource, Protocol):
    """Images with objects, before any transform, and the id of each image."""

    @property
    def ids(self) -> np.ndarray: ...

    def targets(self, index: int) -> Objects: ...


class DetectionSamples(Samples[Sample]):
    """Images as (C, h, w) uint8 pixels with what is in them.

    For training, varied at random, and in pixels of what comes out: "boxes" (N, 4) float32, left, top, right, bottom;
    "labels" (N,) int64; with `masks`, "masks" (N, h, w) uint8. Crowds are left out.

    For evaluation, in pixels of the original (H, W): the same, crowds too, and "iscrowd" (N,) int64, "area" (N,)
    float32, "image_id" int64, "size" (2,) int64: H and W. The id of what does not count is UNCOUNTED.

    Args:
        pictures: where images and objects come from.
        preprocessing: says the number of channels, and all about images for evaluation.
        masks: whether they are wanted.
        options: of training; None for evaluation alone.
        unreadable_log, skip_unreadable: as `Samples` has them.
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
                raise ValueError("these samples were made for evaluation: give them `options` to train")
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
    """A batch of images of any sizes: a list of them, and one of their targets."""
    return [image for image, _ in items], [target for _, target in items]


def open_for_run(source: str | Path, masks: bool = True) -> RunImages:
    """Open the images of a run.

    Args:
        source: as in `fastvit.tasks.detection.coco.open_coco`.
        masks: whether the network predicts masks.

    Raises:
        UserError: as `open_coco` does, or no training image has an object.
    """
    train = open_coco(source, "train", masks=masks)
    images = RunImages(train, open_coco(source, "test", train.classes, masks))
    if not any(len(train.targets(index)) for index in range(len(train))):
        raise UserError(f"no training image of {source} has an object: there is nothing to learn from")
    return images


class DetectionData(RunData):
    """A folder in COCO's format as batches of images of any sizes, shared out among the processes.

    A batch is what `collate` makes of DetectionSamples. The classes are those of the training images.

    Args:
        images: as `open_for_run` opens them.
        preprocessing: what the model expects.
        batch_size: images a step.
        options: of training; whether the network gives masks says if there are any in the targets.
        others: as `RunData` has them.
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
