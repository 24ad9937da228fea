"""Transforms, all built from one description of what the model expects."""

from __future__ import annotations

from collections.abc import Callable

from PIL import Image
from timm.data import create_transform
from torch import Tensor

from fastvit.data.augmentation import Augmentation
from fastvit.model.preprocessing import Preprocessing

Transform = Callable[[Image.Image], Tensor]


def eval_transform(preprocessing: Preprocessing) -> Transform:
    """RGB image -> (3, H, W) float32, as `preprocessing` says."""
    transform: Transform = create_transform(
        (len(preprocessing.mean), *preprocessing.size),
        mean=preprocessing.mean,
        std=preprocessing.std,
        crop_pct=preprocessing.crop_pct,
        interpolation=preprocessing.interpolation,
    )
    return transform


def train_transform(preprocessing: Preprocessing, augmentation: Augmentation) -> Transform:
    """RGB image -> (3, H, W) float32, augmented at random."""
    transform: Transform = create_transform(
        (len(preprocessing.mean), *preprocessing.size),
        is_training=True,
        mean=preprocessing.mean,
        std=preprocessing.std,
        interpolation=preprocessing.interpolation,
        scale=augmentation.scale,
        ratio=augmentation.ratio,
        hflip=augmentation.hflip,
        color_jitter=augmentation.color_jitter or None,
        auto_augment=augmentation.auto_augment or None,
        re_prob=augmentation.random_erasing,
        re_mode="pixel",
    )
    return transform
