"""Random augmentation of training images together with their masks."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import InterpolationMode, v2
from torchvision.transforms.v2 import functional as F

from fastvit.data.pixels import fitted_size
from fastvit.model.preprocessing import Preprocessing
from fastvit.tasks.segmentation.folders import VOID
from fastvit.tasks.segmentation.options import SegmentationOptions

_TRIES = 10


class TrainTransform:
    """Scale jitter, crop, horizontal flip and photometric distortion: -> (C, crop, crop) and (crop, crop) uint8.

    Image and mask are scaled, cropped and flipped together. An image that is smaller than the crop is padded on the
    right and at the bottom, with the mean pixel in the image and 255 in the mask. Random numbers come from torch's
    generator.

    Args:
        options: options of the augmentation.
        preprocessing: preprocessing of the model, for interpolation and mean.
    """

    def __init__(self, options: SegmentationOptions, preprocessing: Preprocessing) -> None:
        self.options = options
        self.fit = replace(preprocessing, size=options.size, resize="resize_shorter")
        self._changes = v2.Compose([v2.RandomHorizontalFlip(options.hflip), photometric(options.photometric)])

    def __call__(self, image: Image.Image, mask: np.ndarray) -> tuple[Tensor, Tensor]:
        low, high = self.options.scale_range
        pixels, labels = self._scaled(image, mask, float(torch.empty(()).uniform_(low, high)))
        top, left, height, width = choose_crop(labels, self.options.crop, self.options.cat_max_ratio)
        # Padded last, so that the padding keeps the mean, and stays on the right and at the bottom.
        return self._filled(
            *self._changes(
                tv_tensors.Image(F.crop(pixels, top, left, height, width)),
                tv_tensors.Mask(F.crop(labels, top, left, height, width)),
            )
        )

    def _scaled(self, image: Image.Image, mask: np.ndarray, factor: float) -> tuple[Tensor, Tensor]:
        height, width = mask.shape
        size = [max(round(side * factor), 1) for side in fitted_size((height, width), self.fit)]
        pixels = F.resize(F.pil_to_tensor(image), size, InterpolationMode(self.fit.interpolation))
        # Not as a tv_tensors.Mask, which torchvision may resize with plain "nearest", off by half a pixel.
        labels = F.resize(torch.from_numpy(mask)[None], size, InterpolationMode.NEAREST_EXACT)
        return pixels, labels[0]

    def _filled(self, pixels: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        height, width = labels.shape
        side = self.options.crop
        mean = torch.tensor(self.fit.mean, dtype=torch.float64).mul(255).round().to(torch.uint8)
        canvas = mean.view(-1, 1, 1).repeat(1, side, side)
        canvas[:, :height, :width] = pixels
        target = torch.full((side, side), VOID, dtype=torch.uint8)
        target[:height, :width] = labels
        return canvas, target


def choose_crop(labels: Tensor, side: int, cat_max_ratio: float) -> tuple[int, int, int, int]:
    """Return top, left, height and width of a random crop in which no class is too large.

    Up to ten crops are drawn; the last one is used if none qualifies.

    Args:
        labels: (H, W) uint8 mask.
        side: side of the crop, in pixels; the crop is not larger than the mask.
        cat_max_ratio: largest share that a class may have of the pixels that are not ignored; 1 accepts any crop.
    """
    height, width = (min(length, side) for length in labels.shape)
    for _ in range(_TRIES):
        top, left = (
            int(torch.randint(whole - part + 1, ())) for whole, part in zip(labels.shape, (height, width), strict=True)
        )
        if cat_max_ratio >= 1 or share_of_largest(labels[top : top + height, left : left + width]) <= cat_max_ratio:
            break
    return top, left, height, width


def share_of_largest(labels: Tensor) -> float:
    """Return the share of the largest class in the labeled pixels of a uint8 mask; 1 if all are ignored."""
    counts = torch.bincount(labels.flatten(), minlength=VOID)[:VOID]
    total = int(counts.sum())
    return int(counts.max()) / total if total else 1.0


def photometric(probability: float) -> v2.Transform:
    """Return a transform that changes brightness, contrast, saturation and hue, each with a probability.

    As in SSD (arXiv 1512.02325), contrast changes before or after saturation and hue. The ranges are those of the
    published recipe of Semantic FPN: brightness 32/255 (here as a factor, there as an offset), contrast 0.5, saturation
    0.5, hue 0.1. A grayscale image changes in brightness and contrast only.
    """
    brightness, contrast, saturation, hue = (
        v2.RandomApply([jitter], probability)
        for jitter in (
            v2.ColorJitter(brightness=32 / 255),
            v2.ColorJitter(contrast=0.5),
            v2.ColorJitter(saturation=0.5),
            v2.ColorJitter(hue=0.1),
        )
    )
    return v2.RandomChoice(
        [v2.Compose([brightness, contrast, saturation, hue]), v2.Compose([brightness, saturation, hue, contrast])]
    )
