"""Gated pooling kernel: squeeze-and-excitation, GELU and the mean over all pixels in one launch.

A program has an image, and reads its map twice, the second time from the L2 cache.
"""

from __future__ import annotations

import triton
import triton.language as tl

from fastvit.kernels.inference.device.gelu import gelu


@triton.jit
def gated_pool(
    x_ptr,
    w1_ptr,
    b1_ptr,
    w2_ptr,
    b2_ptr,
    y_ptr,
    PIXELS: tl.constexpr,
    CHANNELS: tl.constexpr,
    HIDDEN: tl.constexpr,
    WIDTH: tl.constexpr,
    BLOCK_P: tl.constexpr,
    BLOCK_H: tl.constexpr,
):
    """Compute mean(GELU(squeeze_excite(x))).

    Args:
        x_ptr: map, (B, PIXELS, CHANNELS).
        w1_ptr: weights to the hidden channels, (HIDDEN, CHANNELS).
        b1_ptr: biases of the hidden channels, (HIDDEN,).
        w2_ptr: weights of the gate, transposed, (HIDDEN, CHANNELS).
        b2_ptr: biases of the gate, (CHANNELS,).
        y_ptr: output, (B, CHANNELS).
        PIXELS: pixels of an image.
        CHANNELS: channels of the map.
        HIDDEN: hidden channels of squeeze-and-excitation.
        WIDTH: power of two that is not less than CHANNELS.
        BLOCK_P: pixels at a time.
        BLOCK_H: hidden channels at a time.
    """
    image = tl.program_id(0).to(tl.int64)
    c = tl.arange(0, WIDTH)
    there = c < CHANNELS
    x_ptr += image * PIXELS * CHANNELS
    mean = tl.zeros((WIDTH,), tl.float32)
    for start in range(0, PIXELS, BLOCK_P):
        p = start + tl.arange(0, BLOCK_P)
        inside = (p < PIXELS)[:, None] & there[None, :]
        mean += tl.sum(tl.load(x_ptr + p[:, None] * CHANNELS + c[None, :], inside, 0.0).to(tl.float32), 0)
    mean /= PIXELS
    gate = tl.load(b2_ptr + c, there, 0.0).to(tl.float32)
    for start in range(0, HIDDEN, BLOCK_H):
        h = start + tl.arange(0, BLOCK_H)
        inside = (h < HIDDEN)[:, None] & there[None, :]
        offset = h[:, None] * CHANNELS + c[None, :]
        w1 = tl.load(w1_ptr + offset, inside, 0.0).to(tl.float32)
        hidden = tl.sum(w1 * mean[None, :], 1) + tl.load(b1_ptr + h, h < HIDDEN, 0.0).to(tl.float32)
        hidden = tl.maximum(hidden, 0.0, propagate_nan=tl.PropagateNan.ALL)
        gate += tl.sum(tl.load(w2_ptr + offset, inside, 0.0).to(tl.float32) * hidden[:, None], 0)
    gate = tl.sigmoid(gate)
    total = tl.zeros((WIDTH,), tl.float32)
    for start in range(0, PIXELS, BLOCK_P):
        p = start + tl.arange(0, BLOCK_P)
        inside = (p < PIXELS)[:, None] & there[None, :]
        x = tl.load(x_ptr + p[:, None] * CHANNELS + c[None, :], inside, 0.0).to(tl.float32)
        total += tl.sum(gelu(x * gate[None, :]), 0)  # padding is 0, and GELU(0) is 0
    tl.store(y_ptr + image * CHANNELS + c, (total / PIXELS).to(y_ptr.dtype.element_ty), there)
