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
# Side in pixels of a padding sample, which no metric counts.
_UNCOUNTED = 32
_MODES = {1: "L", 3: "RGB"}


class SegmentationSamples(Samples[Pair]):
    """Samples of (C, h, w) uint8 images with (H, W) uint8 masks of classes, 255 where ignored.

    For training, both have the size of the crop. For evaluation, the image is resized, and the mask has its original
    size.

    Args:
        pictures: source of images and masks.
        preprocessing: preprocessing that the model expects, without a crop and with 1 or 3 channels.
        options: augmentation of the training images; None for the defaults.
        unreadable_log: file that lists unreadable training images, see `Samples`.
        skip_unreadable: replace an unreadable evaluation image by a padding sample, with a warning.

    Raises:
        UserError: the preprocessing crops images, pads training images, or has another number of channels.
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
                f'a segmenter needs complete images: set resize to "resize_shorter", not "{preprocessing.resize}"'
            )
        if (channels := len(preprocessing.mean)) not in _MODES:
            raise UserError(f"a segmenter needs images of 1 or 3 channels, not {channels}: change mean and std")
        self.preprocessing = preprocessing
        self._vary = TrainTransform(options or SegmentationOptions(), preprocessing)

    def item(self, index: int, varied: bool) -> Pair:
        image, mask = self.pictures.pair(index)
        image = self._in_channels(image)
        if varied:
            return self._vary(image, mask)
        # The array of a grayscale image is read-only.
        pixels = np.require(eval_array(image, self.preprocessing), requirements="W")
        return torch.from_numpy(pixels), torch.from_numpy(mask)

    def padding_sample(self) -> Pair:
        side = (_UNCOUNTED, _UNCOUNTED)
        image = torch.zeros(len(self.preprocessing.mean), *side, dtype=torch.uint8)
        return image, torch.full(side, VOID, dtype=torch.uint8)

    def _in_channels(self, image: Image.Image) -> Image.Image:
        mode = _MODES[len(self.preprocessing.mean)]
        return image if image.mode == mode else image.convert(mode)


def open_for_run(source: str) -> RunImages:
    """Open the training and validation images of a run with `fastvit.tasks.segmentation.folders.open_masks`.

    Raises:
        UserError: a split cannot be opened, or has only one class.
    """
    train = open_masks(source, "train")
    images = RunImages(train, open_masks(source, "test", train.classes))
    if len(images.classes) < 2:
        raise UserError(f"{source} has one class ({images.classes[0]}); a segmenter needs two: add the background")
    return images


class SegmentationData(RunData):
    """Batches of images with masks, distributed among the processes.

    A training batch is ((B, C, crop, crop) uint8, (B, crop, crop) uint8). A validation batch is one image and one mask
    in lists, from `listed`: the image is resized by `preprocessing`, and the mask has its original size.

    Args:
        images: training and validation images, from `open_for_run`.
        preprocessing: preprocessing that the model expects.
        batch_size: images per training step and process.
        options: options of training; None for the defaults.
        others: other arguments of `RunData`.
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
    """Return samples of different sizes as a batch: a list of images, and a list of masks."""
    return [image for image, _ in pairs], [mask for _, mask in pairs]
