"""Sliding-window inference."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from fastvit.errors import UserError

Network = Callable[[Tensor], Tensor]


def slide(network: Network, images: Tensor, window: int, stride: int) -> Tensor:
    """Return the (B, K, H, W) logits of a network, averaged over sliding windows.

    Windows are `stride` pixels apart; the last window of a row or column is moved inside the image. A window is not
    larger than the image. Sums are in float32 or the network's higher precision.

    Args:
        network: function from (B, C, h, w) images to (B, K, h, w) logits.
        images: (B, C, H, W) images.
        window: side of the square windows, in pixels.
        stride: distance between windows, in pixels.

    Raises:
        UserError: window is below 1, or stride is not between 1 and window.
    """
    if not 1 <= stride <= window:
        raise UserError(f"the stride of windows of {window} pixels must be 1 to {window}, got {stride}")
    height, width = images.shape[-2:]
    rows, columns = starts(height, window, stride), starts(width, window, stride)
    total: Tensor | None = None
    for top in rows:
        for left in columns:
            window_slice = (..., slice(top, min(top + window, height)), slice(left, min(left + window, width)))
            logits = network(images[window_slice])
            if total is None:
                dtype = torch.promote_types(logits.dtype, torch.float32)
                total = logits.new_zeros(*logits.shape[:2], height, width, dtype=dtype)
            total[window_slice] += logits
    assert total is not None
    down, across = (_seen(length, window, begins) for length, begins in ((height, rows), (width, columns)))
    return total / torch.outer(down, across).to(total)


def starts(length: int, window: int, stride: int) -> list[int]:
    """Return the starts of windows that cover a row of pixels; the last window ends with the row.

    Args:
        length: number of pixels in the row.
        window: length of a window, in pixels.
        stride: distance between windows, in pixels.
    """
    last = max(length - window, 0)
    return [*range(0, last, stride), last]


def _seen(length: int, window: int, begins: list[int]) -> Tensor:
    """Return as (length,) the number of windows that contain each pixel."""
    seen = torch.zeros(length)
    for begin in begins:
        seen[begin : begin + window] += 1
    return seen


def resized(logits: Tensor, size: tuple[int, int]) -> Tensor:
    """Return (B, K, h, w) logits resized to (B, K, *size), bilinearly."""
    return F.interpolate(logits, size, mode="bilinear", align_corners=False)
