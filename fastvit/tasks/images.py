"""Checks of the image options that detection and segmentation share. Needs no torch."""

from __future__ import annotations

from typing import Protocol

from fastvit.ranges import POSITIVE, PROBABILITY, SIDE, check_bounds, check_ranges


class ImageOptions(Protocol):
    """Image options of a task."""

    @property
    def size(self) -> tuple[int, int]:
        """Shorter and longer side of the images, in pixels."""

    @property
    def scale_range(self) -> tuple[float, float]:
        """Smallest and largest scale factor."""


def check_images(options: ImageOptions, prefix: str) -> None:
    """Check the sizes of images and the probabilities of augmentations.

    Args:
        options: options of the task, with `size`, `scale_range`, `crop`, `hflip` and `photometric`.
        prefix: prefix of the names in messages, such as "detection.".

    Raises:
        UserError: a value is out of range; the message names the field.
    """
    check_bounds(f"{prefix}size", options.size, SIDE)
    check_bounds(f"{prefix}scale_range", options.scale_range, POSITIVE)
    check_ranges(options, {"crop": SIDE, "hflip": PROBABILITY, "photometric": PROBABILITY}, prefix)
