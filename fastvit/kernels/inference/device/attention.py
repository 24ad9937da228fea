"""Self-attention kernel for the few pixels of the last stage: a program has all pixels of an image for one head."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def attention(
    x_ptr,
    y_ptr,
    SCALE: tl.constexpr,
    PIXELS: tl.constexpr,
    CHANNELS: tl.constexpr,
    HEAD: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Compute self-attention.

    Args:
        x_ptr: queries, keys and values, (B, PIXELS, 3 CHANNELS).
        y_ptr: output, (B, PIXELS, CHANNELS).
        SCALE: scale of the logits, to base 2.
        PIXELS: pixels of an image.
        CHANNELS: channels of the output.
        HEAD: channels of a head, a power of two.
        BLOCK: power of two that is not less than PIXELS.
    """
    heads = CHANNELS // HEAD
    image, head = tl.program_id(0) // heads, tl.program_id(0) % heads
    p, c = tl.arange(0, BLOCK), head * HEAD + tl.arange(0, HEAD)
    here = (p < PIXELS)[:, None]
    row = (image.to(tl.int64) * PIXELS + p)[:, None] * CHANNELS
    queries = tl.load(x_ptr + 3 * row + c[None, :], here, 0.0)
    keys = tl.load(x_ptr + 3 * row + CHANNELS + c[None, :], here, 0.0)
    values = tl.load(x_ptr + 3 * row + 2 * CHANNELS + c[None, :], here, 0.0)
    logits = tl.dot(queries, tl.trans(keys)) * SCALE
    logits = tl.where((p < PIXELS)[None, :], logits, float("-inf"))
    weights = tl.exp2(logits - tl.max(logits, 1)[:, None])
    mixed = tl.dot(weights.to(values.dtype), values) / tl.sum(weights, 1)[:, None]
    tl.store(y_ptr + row + c[None, :], mixed.to(y_ptr.dtype.element_ty), here)
