"""Options of image augmentation. Needs no torch."""

from __future__ import annotations

import re
from dataclasses import dataclass

from fastvit.errors import UserError
from fastvit.ranges import NOT_NEGATIVE, POSITIVE, PROBABILITY, SHARE, check_bounds, check_ranges

# Policies that timm accepts: a name, and settings separated by hyphens.
_POLICIES = re.compile(
    r"rand(-(m|n|mmax|inc)\d+|-(p|mstd)\d+(\.\d+)?|-t(weights|3aw?))*"
    r"|augmix(-[mwdb]\d+|-(a|mstd)\d+(\.\d+)?)*"
    r"|(v0|v0r|original|originalr|3a)(-mstd\d+(\.\d+)?)*"
)


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

    def __post_init__(self) -> None:
        check_bounds("augmentation.scale", self.scale, SHARE)
        check_bounds("augmentation.ratio", self.ratio, POSITIVE)
        ranges = {"hflip": PROBABILITY, "color_jitter": NOT_NEGATIVE, "random_erasing": PROBABILITY}
        check_ranges(self, ranges, "augmentation.")
        if self.auto_augment and not _POLICIES.fullmatch(self.auto_augment):
            raise UserError(
                f"augmentation.auto_augment must be a policy of timm, such as rand-m9-mstd0.5-inc1, or null, got "
                f"{self.auto_augment!r}"
            )
