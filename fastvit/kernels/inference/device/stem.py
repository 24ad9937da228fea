"""The first convolution: a few channels in, 3x3, stride 2, GELU; images of any memory format in, NHWC out."""

from __future__ import annotations

import triton
import triton.language as tl

from fastvit.kernels.inference.device.gelu import gelu


@triton.jit(do_not_specialize=["pixels", "height", "width", "out_height", "out_width", "image", "row"])
def stem(
    x_ptr,
    w_ptr,
    b_ptr,
    y_ptr,
    pixels,
    height,
    width,
    out_height,
    out_width,
    image,
    channel,
    row,
    column,
    IN: tl.constexpr,
    OUT: tl.constexpr,
    KERNEL: tl.constexpr,
    STRIDE: tl.constexpr,
    TAPS: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
):
    """x of strides (image, channel, row, column), w (TAPS, OUT) with zeros below IN * KERNEL * KERNEL, b (OUT,).

    pixels are those of all answers together, TAPS a power of two.
    """
    across = tl.cdiv(OUT, BLOCK_N)
    program = tl.program_id(0)
    m = program // across * BLOCK_M + tl.arange(0, BLOCK_M)
    n = program % across * BLOCK_N + tl.arange(0, BLOCK_N)
    k = tl.arange(0, TAPS)
    here, there = m < pixels, n < OUT
    y = (m // out_width % out_height * STRIDE - KERNEL // 2)[:, None] + (k // KERNEL % KERNEL)[None, :]
    x = (m % out_width * STRIDE - KERNEL // 2)[:, None] + (k % KERNEL)[None, :]
    from_channel = k // (KERNEL * KERNEL)
    inside = here[:, None] & (from_channel < IN)[None, :] & (y >= 0) & (y < height) & (x >= 0) & (x < width)
    offset = (m // (out_height * out_width)).to(tl.int64)[:, None] * image
    offset += from_channel[None, :] * channel + y * row + x * column
    patches = tl.load(x_ptr + offset, inside, 0.0)
    w = tl.load(w_ptr + k[:, None] * OUT + n[None, :], there[None, :], 0.0)
    total = tl.dot(patches, w) + tl.load(b_ptr + n, there, 0.0).to(tl.float32)[None, :]
    to = m.to(tl.int64)[:, None] * OUT + n[None, :]
    tl.store(y_ptr + to, gelu(total).to(y_ptr.dtype.element_ty), here[:, None] & there[None, :])
