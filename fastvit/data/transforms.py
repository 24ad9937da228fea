"""Training and evaluation transforms, built from a model's preprocessing.

Images stay 8-bit until they are on the device: a quarter of the bytes to copy, and one kernel to normalize a batch.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import chain
from typing import Any, cast

import torch
from PIL import Image, ImageOps
from timm.data import create_transform
from torch import Tensor

from fastvit.data.augmentation import Augmentation
from fastvit.data.pixels import eval_array
from fastvit.model.preprocessing import Preprocessing

Transform = Callable[[Image.Image], Tensor]


def eval_pixels(preprocessing: Preprocessing) -> Transform:
    """Return the transform from an image to (C, H, W) uint8 pixels for evaluation: resize, then crop or pad."""
    return partial(_eval_tensor, preprocessing=preprocessing)


def _eval_tensor(image: Image.Image, preprocessing: Preprocessing) -> Tensor:
    return torch.from_numpy(eval_array(image, preprocessing))


def train_pixels(preprocessing: Preprocessing, augmentation: Augmentation) -> Transform:
    """Return the training transform from an image to (C, H, W) uint8 pixels; random erasing and mixup come later."""
    transform = create_transform(
        (len(preprocessing.mean), *preprocessing.size),
        is_training=True,
        mean=preprocessing.mean,
        interpolation=preprocessing.interpolation,
        scale=augmentation.scale,
        ratio=augmentation.ratio,
        hflip=augmentation.hflip,
        color_jitter=augmentation.color_jitter or None,
        auto_augment=augmentation.auto_augment or None,
        normalize=False,
    )
    for step in transform.transforms:
        for operation in chain(getattr(step, "ops", ()), *getattr(step, "policy", ())):
            if operation.name.startswith("Posterize"):
                operation.aug_fn = _posterize
    return cast(Transform, transform)


def _posterize(image: Image.Image, bits: int, **_: Any) -> Image.Image:
    """Posterize, keeping at least one bit: timm's strongest level keeps none, which Pillow 13 rejects."""
    return ImageOps.posterize(image, min(max(bits, 1), 8))


def normalize(pixels: Tensor, preprocessing: Preprocessing) -> Tensor:
    """Normalize uint8 pixels (..., C, H, W) to float32 with the mean and standard deviation of each channel."""
    mean, std = (
        torch.tensor(values, device=pixels.device).view(-1, 1, 1) for values in (preprocessing.mean, preprocessing.std)
    )
    scaled = pixels.to(torch.float32, memory_format=torch.contiguous_format).div_(255)
    return scaled.sub_(mean).div_(std)


def eval_transform(preprocessing: Preprocessing) -> Transform:
    """Return the transform from an image to normalized (C, H, W) float32 pixels for evaluation."""
    pixels = eval_pixels(preprocessing)
    return lambda image: normalize(pixels(image), preprocessing)
