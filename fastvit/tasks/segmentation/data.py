"""Batches for training and evaluating a segmenter."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader

from fastvit.data.datasets import Samples
from fastvit.data.module import RunData, RunImages
from fastvit.data.pixels import eval_array
from fastvit.errors import UserError
from fastvit.model.preprocessing import Preprocessing
from fastvit.tasks.segmentation.folders import VOID, MaskedImages, open_masks
from fastvit.tasks.segmentation.options import SegmentationOptions
from fastvit.tasks.segmentation.transforms import TrainTransform

Pair = tuple[Tensor, Tensor]
Pairs = tuple[list[Tensor], list[Tensor]]
# Side in pixels of what only fills up a batch.
_UNCOUNTED = 32
_MODES = {1: "L", 3: "RGB"}


class SegmentationSamples(Samples[Pair]):
    """Images with their masks: (C, h, w) uint8, and (H, W) uint8 classes with 255 where nothing counts.

    For training both have the size of the crop; for evaluation the image is scaled, and the mask is as it is stored.

    Args:
        pictures: where images and masks come from.
        preprocessing: what the model expects: images of one or three channels, all of each.
        options: how training images are varied.
        others: as `Samples` has them.

    Raises:
        UserError: the preprocessing crops images, or for training fills them up, or has another number of channels.
    """

    pictures: MaskedImages

    def __init__(
        self,
        pictures: MaskedImages,
        preprocessing: Preprocessing,
        options: SegmentationOptions | None = None,
        unreadable_log: Path | None = None,
        skip_unreadable: bool = False,
    ) -> None:
        super().__init__(pictures, unreadable_log, skip_unreadable)
        if preprocessing.resize == "crop" or (options and preprocessing.resize != "resize_shorter"):
            raise UserError(
                f'a segmenter needs all of an image: set resize to "resize_shorter", not "{preprocessing.resize}"'
            )
        if (channels := len(preprocessing.mean)) not in _MODES:
            raise UserError(f"a segmenter is trained on images of 1 or 3 channels, not {channels}")
        self.preprocessing = preprocessing
        self._vary = TrainTransform(options or SegmentationOptions(), preprocessing)

    def item(self, index: int, varied: bool) -> Pair:
        image, mask = self.pictures.pair(index)
        image = self._in_channels(image)
        if varied:
            return self._vary(image, mask)
        pixels = np.require(eval_array(image, self.preprocessing), requirements="W")  # a gray image's own are not
        return torch.from_numpy(pixels), torch.from_numpy(mask)

    def padding_sample(self) -> Pair:
        side = (_UNCOUNTED, _UNCOUNTED)
        image = torch.zeros(len(self.preprocessing.mean), *side, dtype=torch.uint8)
        return image, torch.full(side, VOID, dtype=torch.uint8)

    def _in_channels(self, image: Image.Image) -> Image.Image:
        mode = _MODES[len(self.preprocessing.mean)]
        return image if image.mode == mode else image.convert(mode)


def open_for_run(source: str) -> RunImages:
    """Open the images of a run, from folders as `fastvit.tasks.segmentation.folders.open_masks` has them.

    Raises:
        UserError: as `open_masks` does, or there is only one class.
    """
    train = open_masks(source, "train")
    images = RunImages(train, open_masks(source, "test", train.classes))
    if len(images.classes) < 2:
        raise UserError(f"{source} has one class ({images.classes[0]}); a segmenter needs two: name the background")
    return images


class SegmentationData(RunData):
    """Folders of images with masks as batches, shared out among the processes.

    For training ((B, C, crop, crop) uint8, (B, crop, crop) uint8); for validation lists of one image and one mask, as
    `listed` makes them: images are scaled as `preprocessing` says, masks have their own size, and both differ from
    image to image.

    Args:
        images: as `open_for_run` opens them.
        preprocessing: what the model expects.
        batch_size: images a training step.
        options: of training.
        others: as `RunData` has them.
    """

    train_images: MaskedImages
    test_images: MaskedImages

    def __init__(
        self,
        images: RunImages,
        preprocessing: Preprocessing,
        batch_size: int,
        options: SegmentationOptions | None = None,
        **others: Any,
    ) -> None:
        super().__init__(images, preprocessing, batch_size, **others)
        self.options = options or SegmentationOptions()

    def train_dataloader(self) -> DataLoader[Pair]:
        samples = SegmentationSamples(self.train_images, self.preprocessing, self.options, self.unreadable_log)
        return self.train_loader(samples)

    def val_dataloader(self) -> DataLoader[Pairs]:
        samples = SegmentationSamples(self.test_images, self.preprocessing, skip_unreadable=self.skip_unreadable)
        return self.val_loader(samples, 1, listed)


def listed(pairs: Sequence[Pair]) -> Pairs:
    """Samples of different sizes as a batch."""
    return [image for image, _ in pairs], [mask for _, mask in pairs]
