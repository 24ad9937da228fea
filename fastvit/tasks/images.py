"""Checks of the image options of detection and segmentation in training. Needs no torch."""

from __future__ import annotations

from collections.abc import Mapping

from fastvit.errors import UserError


def check_images(
    task: str, size: tuple[int, int], scale_range: tuple[float, float], crop: int | None, shares: Mapping[str, float]
) -> None:
    """See that the sizes of images and the probabilities of changes make sense.

    Args:
        task: in front of the fields in errors.
        size: shorter and longer side in pixels.
        scale_range: least and largest scale.
        crop: side in pixels.
        shares: what must be in [0, 1], by name.

    Raises:
        UserError: one does not; the message names it.
    """
    if not 32 <= size[0] <= size[1]:
        raise UserError(f"{task}.size must be the shorter and the longer side, from 32 pixels on, got {list(size)}")
    if not 0 < scale_range[0] <= scale_range[1]:
        raise UserError(
            f"{task}.scale_range must be two factors above 0, the smaller one first, got {list(scale_range)}"
        )
    if crop is not None and crop < 32:
        raise UserError(f"{task}.crop must be at least 32 pixels, got {crop}")
    for name, value in shares.items():
        if not 0 <= value <= 1:
            raise UserError(f"{task}.{name} must be in 0 to 1, got {value}")
