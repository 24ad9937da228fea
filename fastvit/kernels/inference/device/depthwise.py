"""Depthwise k x k convolution: every tap a load, which the caches serve. For GPUs without NVRTC, and small maps."""

from __future__ import annotations

import triton
import triton.language as tl

from fastvit.kernels.inference.device.gelu import gelu


@triton.jit(do_not_specialize=["height", "width", "out_height", "out_width"])
def depthwise(
    x_ptr,
    w_ptr,
    b_ptr,
    y_ptr,
    height,
    width,
    out_height,
    out_width,
    CHANNELS: tl.constexpr,
    MULTIPLIER: tl.constexpr,
    KERNEL: tl.constexpr,
    STRIDE: tl.constexpr,
    ACT: tl.constexpr,
    BLOCK_H: tl.constexpr,
    BLOCK_W: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """X (B, height, width, CHANNELS / MULTIPLIER), w (KERNEL * KERNEL, CHANNELS) and b (CHANNELS,) float32."""
    groups = tl.cdiv(CHANNELS, BLOCK_C)
    across, down = tl.cdiv(out_width, BLOCK_W), tl.cdiv(out_height, BLOCK_H)
    program = tl.program_id(0)
    c = program % groups * BLOCK_C + tl.arange(0, BLOCK_C)
    tile = program // groups % (across * down)
    image = (program // groups // (across * down)).to(tl.int64)
    pixel = tl.arange(0, BLOCK_H * BLOCK_W)
    row = tile // across * BLOCK_H + pixel // BLOCK_W
    column = tile % across * BLOCK_W + pixel % BLOCK_W
    there = c < CHANNELS

    x_ptr += image * height * width * (CHANNELS // MULTIPLIER) + c[None, :] // MULTIPLIER
    total = tl.zeros((BLOCK_H * BLOCK_W, BLOCK_C), tl.float32) + tl.load(b_ptr + c, there, 0.0)[None, :]
    for kh in tl.static_range(KERNEL):
        for kw in tl.static_range(KERNEL):
            y, x = row * STRIDE + kh - KERNEL // 2, column * STRIDE + kw - KERNEL // 2
            inside = (y >= 0) & (y < height) & (x >= 0) & (x < width)
            offset = (y * width + x) * (CHANNELS // MULTIPLIER)
            value = tl.load(x_ptr + offset[:, None], inside[:, None] & there[None, :], 0.0)
            weight = tl.load(w_ptr + (kh * KERNEL + kw) * CHANNELS + c, there, 0.0)
            total += value.to(tl.float32) * weight[None, :]
    if ACT:
        total = gelu(total)
    y_ptr += image * out_height * out_width * CHANNELS
    inside = (row < out_height) & (column < out_width)
    offset = (row * out_width + column)[:, None] * CHANNELS + c[None, :]
    tl.store(y_ptr + offset, total.to(y_ptr.dtype.element_ty), inside[:, None] & there[None, :])
