"""Feed-forward kernel: 1x1 up, GELU, 1x1 down and the residual in one pass; the hidden map never leaves the chip.

A program has BLOCK_M pixels with all their channels, and loops over blocks of hidden channels. The channels are padded
to FIRST + SECOND, two powers of two: 64 + 16 for 76 channels, where one power of two would be 128.
"""

from __future__ import annotations

import triton
import triton.language as tl

from fastvit.kernels.inference.device.gelu import gelu


@triton.jit(do_not_specialize=["rows"])
def feed_forward(
    x_ptr,
    w1_ptr,
    b1_ptr,
    w2_ptr,
    b2_ptr,
    r_ptr,
    y_ptr,
    rows,
    CHANNELS: tl.constexpr,
    HIDDEN: tl.constexpr,
    FIRST: tl.constexpr,
    SECOND: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
):
    """Compute residual + down(GELU(up(x))).

    Args:
        x_ptr: input, (rows, CHANNELS).
        w1_ptr: weights up, (HIDDEN, CHANNELS).
        b1_ptr: biases up, (HIDDEN,).
        w2_ptr: weights down, (CHANNELS, HIDDEN).
        b2_ptr: biases down, (CHANNELS,).
        r_ptr: residual, (rows, CHANNELS).
        y_ptr: output, (rows, CHANNELS).
        rows: number of pixels.
        CHANNELS: channels of the map.
        HIDDEN: hidden channels.
        FIRST: first part of the channels, a power of two.
        SECOND: second part of the channels, a power of two or 0.
        BLOCK_M: pixels of a program.
        BLOCK_N: hidden channels at a time.
    """
    m = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    here = (m < rows)[:, None]
    row = m.to(tl.int64)[:, None] * CHANNELS
    c = tl.arange(0, FIRST)
    inside = c < CHANNELS
    x = tl.load(x_ptr + row + c[None, :], here & inside[None, :], 0.0)
    total = tl.zeros((BLOCK_M, FIRST), tl.float32)
    if SECOND > 0:
        c2 = FIRST + tl.arange(0, SECOND)
        inside2 = c2 < CHANNELS
        x2 = tl.load(x_ptr + row + c2[None, :], here & inside2[None, :], 0.0)
        total2 = tl.zeros((BLOCK_M, SECOND), tl.float32)
    for start in range(0, HIDDEN, BLOCK_N):
        n = start + tl.arange(0, BLOCK_N)
        there = n < HIDDEN
        w1 = tl.load(w1_ptr + n[None, :] * CHANNELS + c[:, None], inside[:, None] & there[None, :], 0.0)
        hidden = tl.dot(x, w1)
        if SECOND > 0:
            w1 = tl.load(w1_ptr + n[None, :] * CHANNELS + c2[:, None], inside2[:, None] & there[None, :], 0.0)
            hidden = tl.dot(x2, w1, hidden)
        hidden = gelu(hidden + tl.load(b1_ptr + n, there, 0.0).to(tl.float32)[None, :])
        hidden = hidden.to(x_ptr.dtype.element_ty)
        w2 = tl.load(w2_ptr + c[None, :] * HIDDEN + n[:, None], inside[None, :] & there[:, None], 0.0)
        total = tl.dot(hidden, w2, total)
        if SECOND > 0:
            w2 = tl.load(w2_ptr + c2[None, :] * HIDDEN + n[:, None], inside2[None, :] & there[:, None], 0.0)
            total2 = tl.dot(hidden, w2, total2)
    total += tl.load(b2_ptr + c, inside, 0.0).to(tl.float32)[None, :]
    total += tl.load(r_ptr + row + c[None, :], here & inside[None, :], 0.0).to(tl.float32)
    tl.store(y_ptr + row + c[None, :], total.to(y_ptr.dtype.element_ty), here & inside[None, :])
    if SECOND > 0:
        total2 += tl.load(b2_ptr + c2, inside2, 0.0).to(tl.float32)[None, :]
        total2 += tl.load(r_ptr + row + c2[None, :], here & inside2[None, :], 0.0).to(tl.float32)
        tl.store(y_ptr + row + c2[None, :], total2.to(y_ptr.dtype.element_ty), here & inside2[None, :])
