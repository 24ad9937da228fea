"""Checks of the image options that detection and segmentation share. Needs no torch."""

from __future__ import annotations

from collections.abc import Mapping

from fastvit.errors import UserError


def check_images(
    task: str, size: tuple[int, int], scale_range: tuple[float, float], crop: int | None, shares: Mapping[str, float]
) -> None:
    """Check the sizes of images and the probabilities of augmentations.

    Args:
        task: name of the recipe section, for error messages.
        size: shorter and longer side of the images, in pixels.
        scale_range: smallest and largest scale factor.
        crop: side of the crop, in pixels; None for no crop.
        shares: values that must be in [0, 1], by field name.

    Raises:
        UserError: a value is out of range; the message names the field.
    """
    if not 32 <= size[0] <= size[1]:
        raise UserError(
            f"{task}.size must be the shorter and the longer side, each at least 32 pixels, got {list(size)}"
        )
    if not 0 < scale_range[0] <= scale_range[1]:
        raise UserError(
            f"{task}.scale_range must be two factors above 0, the smaller one first, got {list(scale_range)}"
        )
    if crop is not None and crop < 32:
        raise UserError(f"{task}.crop must be at least 32 pixels, got {crop}")
    for name, value in shares.items():
        if not 0 <= value <= 1:
            raise UserError(f"{task}.{name} must be from 0 to 1, got {value}")
