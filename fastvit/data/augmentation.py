"""Options of image augmentation. Needs no torch."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Augmentation:
    """Augmentation of single training images; mixup and CutMix, which work on batches, are in the section `mixup`.

    Attributes:
        scale: smallest and largest area of a random resized crop, as a fraction of the image.
        ratio: smallest and largest aspect ratio (width to height) of a random resized crop.
        hflip: probability of a horizontal flip.
        color_jitter: strength of brightness, contrast and saturation changes, 0 for none.
        auto_augment: AutoAugment or RandAugment policy of timm, such as "rand-m9-mstd0.5-inc1"; null for none.
        random_erasing: probability that a random rectangle is replaced by noise.
    """

    scale: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    hflip: float = 0.5
    color_jitter: float = 0.4
    auto_augment: str | None = "rand-m9-mstd0.5-inc1"
    random_erasing: float = 0.25
