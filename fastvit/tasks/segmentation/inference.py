"""Asking a network about an image window by window."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from fastvit.errors import UserError

Network = Callable[[Tensor], Tensor]


def slide(network: Network, images: Tensor, window: int, stride: int) -> Tensor:
    """(B, C, H, W) images -> (B, K, H, W) logits: the mean of what the network says in each window.

    Windows are `stride` pixels apart; the last of a row or column is moved inside. Where an image is smaller than the
    window, so is the window. Sums are float32 at least, whatever the network gives.

    Args:
        network: (B, C, h, w) -> (B, K, h, w).
        images: what it takes.
        window: side in pixels.
        stride: pixels from one window to the next.

    Raises:
        UserError: window is below 1, or stride not between 1 and window.
    """
    if not 1 <= stride <= window:
        raise UserError(f"windows of {window} pixels must be 1 to {window} pixels apart, got a stride of {stride}")
    height, width = images.shape[-2:]
    rows, columns = starts(height, window, stride), starts(width, window, stride)
    total: Tensor | None = None
    for top in rows:
        for left in columns:
            place = (..., slice(top, min(top + window, height)), slice(left, min(left + window, width)))
            logits = network(images[place])
            if total is None:
                dtype = torch.promote_types(logits.dtype, torch.float32)
                total = logits.new_zeros(*logits.shape[:2], height, width, dtype=dtype)
            total[place] += logits
    assert total is not None
    down, across = (_seen(length, window, begins) for length, begins in ((height, rows), (width, columns)))
    return total / torch.outer(down, across).to(total)


def starts(length: int, window: int, stride: int) -> list[int]:
    """Where the windows begin that cover a row of pixels; the last ends with it."""
    last = max(length - window, 0)
    return [*range(0, last, stride), last]


def _seen(length: int, window: int, begins: list[int]) -> Tensor:
    """(length,) in how many windows each pixel is."""
    seen = torch.zeros(length)
    for begin in begins:
        seen[begin : begin + window] += 1
    return seen


def resized(logits: Tensor, size: tuple[int, int]) -> Tensor:
    """(B, K, h, w) -> (B, K, *size), bilinear."""
    return F.interpolate(logits, size, mode="bilinear", align_corners=False)
