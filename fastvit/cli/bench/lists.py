"""Parse options that are lists, separated by commas."""

from __future__ import annotations

from fastvit.arguments import parse_size
from fastvit.errors import UserError


def parse_numbers(text: str) -> list[int]:
    """Return the batch sizes of a list such as "1,128".

    Raises:
        UserError: one is not a number, or is 0.
    """
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdigit() and int(part) for part in parts):
        raise UserError(f"batch must be numbers of images, separated by commas, got {text!r}")
    return [int(part) for part in parts]


def parse_sizes(text: str) -> list[tuple[int, int]]:
    """Return the heights and widths, in pixels, of a list such as "192,192x256".

    Raises:
        UserError: one is not a size, or is below 32 pixels.
    """
    sizes = [parse_size(part.strip()) for part in text.split(",")]
    if not all(isinstance(size, tuple) and min(size) >= 32 for size in sizes):
        raise UserError(
            f"size must be numbers of pixels from 32 on, or HEIGHTxWIDTH, separated by commas, got {text!r}"
        )
    return [size for size in sizes if isinstance(size, tuple)]
