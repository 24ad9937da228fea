"""Depthwise k x k convolution kernel for systems without NVRTC and for small maps: every tap is a load from a cache."""

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
    """Convolve each channel by itself, with padding KERNEL // 2.

    Args:
        x_ptr: map, (B, height, width, CHANNELS / MULTIPLIER).
        w_ptr: weights, (KERNEL * KERNEL, CHANNELS), float32.
        b_ptr: biases, (CHANNELS,), float32.
        y_ptr: output, (B, out_height, out_width, CHANNELS).
        height: height of the input.
        width: width of the input.
        out_height: height of the output.
        out_width: width of the output.
        CHANNELS: channels of the output.
        MULTIPLIER: output channels per input channel.
        KERNEL: kernel size, odd.
        STRIDE: vertical and horizontal stride.
        ACT: whether GELU follows.
        BLOCK_H: output rows of a program.
        BLOCK_W: output columns of a program.
        BLOCK_C: output channels of a program.
    """
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
