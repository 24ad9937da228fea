"""Transforms, all built from one description of what the model expects."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from PIL import Image
from timm.data import create_transform
from torch import Tensor

from fastvit.model.preprocessing import Preprocessing

Transform = Callable[[Image.Image], Tensor]


@dataclass(frozen=True)
class Augmentation:
    """Of training images; mixing happens on batches and is not here.

    Attributes:
        scale: smallest and largest share of the image's area in a random resized crop.
        ratio: smallest and largest aspect ratio of the crop.
        hflip: probability of a horizontal flip.
        color_jitter: strength of brightness, contrast and saturation changes, 0 for none.
        auto_augment: a policy in timm's notation, such as "rand-m9-mstd0.5-inc1"; empty for none.
        random_erasing: probability of erasing a rectangle with noise.
    """

    scale: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    hflip: float = 0.5
    color_jitter: float = 0.4
    auto_augment: str = "rand-m9-mstd0.5-inc1"
    random_erasing: float = 0.25


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
