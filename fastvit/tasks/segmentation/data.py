"""Batches for training and evaluating a segmenter."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader

from fastvit.data.datasets import Samples
from fastvit.data.module import RunData
from fastvit.data.pixels import eval_array
from fastvit.data.sampling import EvaluationShare
from fastvit.data.workers import loader_settings
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
        damage_log: Path | None = None,
        allow_damaged: bool = False,
    ) -> None:
        super().__init__(pictures, damage_log, allow_damaged)
        if preprocessing.resize == "crop" or (options and preprocessing.resize != "fit"):
            raise UserError(f'a segmenter needs all of an image: set resize to "fit", not "{preprocessing.resize}"')
        if (channels := len(preprocessing.mean)) not in _MODES:
            raise UserError(f"a segmenter is trained on images of 1 or 3 channels, not {channels}")
        self.preprocessing = preprocessing
        self._vary = TrainTransform(options or SegmentationOptions(), preprocessing)

    def item(self, index: int, varied: bool) -> Pair:
        image, mask = self.pictures.pair(index)
        image = self._in_channels(image)
        if varied:
            return self._vary(image, mask)
        pixels = np.require(eval_array(image, self.preprocessing), requirements="W")  # a grey image's own are not
        return torch.from_numpy(pixels), torch.from_numpy(mask)

    def uncounted(self) -> Pair:
        side = (_UNCOUNTED, _UNCOUNTED)
        image = torch.zeros(len(self.preprocessing.mean), *side, dtype=torch.uint8)
        return image, torch.full(side, VOID, dtype=torch.uint8)

    def _in_channels(self, image: Image.Image) -> Image.Image:
        mode = _MODES[len(self.preprocessing.mean)]
        return image if image.mode == mode else image.convert(mode)


class SegmentationData(RunData):
    """Folders of images with masks as batches, shared out among the processes.

    For training ((B, C, crop, crop) uint8, (B, crop, crop) uint8); for validation lists of one image and one mask, as
    `evaluation_loader` gives them.

    Args:
        source: as in `fastvit.tasks.segmentation.folders.open_masks`.
        batch_size: images a training step.
        options: of training.
        workers: processes that decode images; 0 decodes in the training process, None takes one a core but one.
        preprocessing: what the model expects; may be set until batches are asked for.
        seed: of order and augmentation.
        allow_damaged: leave validation images out that cannot be decoded, with a warning, where they are an error.

    Raises:
        UserError: as `open_masks` does, or there is only one class.
    """

    train_images: MaskedImages
    test_images: MaskedImages

    def __init__(
        self,
        source: str,
        batch_size: int,
        options: SegmentationOptions | None = None,
        workers: int | None = None,
        preprocessing: Preprocessing | None = None,
        seed: int = 0,
        allow_damaged: bool = False,
    ) -> None:
        self.options = options or SegmentationOptions()
        train_images = open_masks(source, "train")
        test_images = open_masks(source, "test", train_images.classes)
        preprocessing = preprocessing or Preprocessing(self.options.size, resize="fit")
        super().__init__(train_images, test_images, batch_size, workers, preprocessing, seed, allow_damaged)
        if len(self.classes) < 2:
            raise UserError(f"{source} has one class ({self.classes[0]}); a segmenter needs two: name the background")

    def train_dataloader(self) -> DataLoader[Pair]:
        samples = SegmentationSamples(self.train_images, self.preprocessing, self.options, self.damage_log)
        return self.train_loader(samples)

    def val_dataloader(self) -> DataLoader[Pairs]:
        share = EvaluationShare(len(self.test_images), *self.process)
        return evaluation_loader(self.test_images, self.preprocessing, self.workers, share, self.allow_damaged)


def evaluation_loader(
    images: MaskedImages,
    preprocessing: Preprocessing,
    workers: int | None = None,
    share: EvaluationShare | None = None,
    allow_damaged: bool = False,
    batch_size: int = 1,
) -> DataLoader[Pairs]:
    """All images in order, or a process's share of them, as (list of (C, h, w) uint8, list of (H, W) uint8).

    Images are scaled as `preprocessing` says, masks have their own size; both differ from image to image. An image that
    cannot be decoded raises a UserError or, with `allow_damaged`, no pixel of it counts; a warning names it.

    Raises:
        UserError: batch_size, workers or the preprocessing make no sense.
    """
    if batch_size < 1:
        raise UserError(f"batch_size must be at least 1, got {batch_size}")
    samples = SegmentationSamples(images, preprocessing, allow_damaged=allow_damaged)
    return DataLoader(samples, batch_size, sampler=share, collate_fn=listed, **loader_settings(workers))  # type: ignore


def listed(pairs: Sequence[Pair]) -> Pairs:
    """Samples of different sizes as a batch."""
    return [image for image, _ in pairs], [mask for _, mask in pairs]
