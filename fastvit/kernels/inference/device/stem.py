"""The stem in one launch: 3x3 stride 2, depthwise 3x3 stride 2 and 1x1, each with GELU; its maps never leave the chip.

A program has BLOCK_M columns of outputs, of any images, and walks ROWS rows down. An output needs three rows and three
columns of the first convolution's map; the third row is the next output's first, and what it adds to that is carried
along, so that six pixels of nine are computed. The columns between neighbors are computed by both.
"""

from __future__ import annotations

import triton
import triton.language as tl

from fastvit.kernels.inference.device.gelu import gelu


@triton.jit
def _pixels(x_ptr, start, row, column, here, height, width, channel, down, along, w, IN: tl.constexpr):
    """(BLOCK_M, WIDTH) of the first convolution's map, zero outside of it; start (BLOCK_M,) is the image's."""
    k = tl.arange(0, w.shape[0])
    there = here & (row >= 0) & (row < (height + 1) // 2) & (column >= 0) & (column < (width + 1) // 2)
    y = (2 * row - 1 + k // 3 % 3)[None, :]
    x = (2 * column - 1)[:, None] + (k % 3)[None, :]
    inside = there[:, None] & (k < IN * 9)[None, :] & (y >= 0) & (y < height) & (x >= 0) & (x < width)
    offset = start[:, None] + ((k // 9 * channel)[None, :] + y * down + x * along)
    # Behind the taps, w has the bias.
    bias = tl.where(k == IN * 9, 1.0, 0.0).to(w.dtype)[None, :]
    patches = tl.load(x_ptr + offset, inside, bias)
    return tl.where(there[:, None], gelu(tl.dot(patches, w)), 0.0)


@triton.jit(do_not_specialize=["columns", "height", "width", "out_height", "out_width", "image", "channel", "row"])
def stem(
    x_ptr,
    w1_ptr,
    w2_ptr,
    b2_ptr,
    w3_ptr,
    b3_ptr,
    y_ptr,
    columns,
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
    TAPS: tl.constexpr,
    WIDTH: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK_M: tl.constexpr,
):
    """X of strides (image, channel, row, column), w2 (9, OUT) and b2 (OUT,) float32, w3 (OUT, OUT) and b3 (OUT,).

    w1 (TAPS, OUT) has IN * 9 rows of weights, one of biases, and zeros. columns are those of all outputs together.
    TAPS and WIDTH are powers of two, WIDTH not less than OUT.
    """
    m = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    here = m < columns
    j = m % out_width
    k, c = tl.arange(0, TAPS), tl.arange(0, WIDTH)
    there = c < OUT
    first = tl.program_id(1) * ROWS
    start = (m // out_width).to(tl.int64) * image
    w1 = tl.load(w1_ptr + k[:, None] * OUT + c[None, :], there[None, :], 0.0)
    w3 = tl.load(w3_ptr + c[None, :] * OUT + c[:, None], there[:, None] & there[None, :], 0.0)

    after = tl.zeros((BLOCK_M, WIDTH), tl.float32)
    # Loops that stay loops: the compiler would begin with all pixels at once, and run out of registers.
    for b in tl.range(3, num_stages=1):
        value = _pixels(x_ptr, start, 2 * first - 1, 2 * j - 1 + b, here, height, width, channel, row, column, w1, IN)
        after += value * tl.load(w2_ptr + b * OUT + c, there, 0.0)[None, :]
    for i in tl.range(ROWS, num_stages=1):
        total = after + tl.load(b2_ptr + c, there, 0.0)[None, :]
        after = tl.zeros((BLOCK_M, WIDTH), tl.float32)
        for tap in tl.range(3, 9, num_stages=1):
            a, b = tap // 3, tap % 3
            value = _pixels(
                x_ptr, start, 2 * (first + i) - 1 + a, 2 * j - 1 + b, here, height, width, channel, row, column, w1, IN
            )
            total += value * tl.load(w2_ptr + tap * OUT + c, there, 0.0)[None, :]
            after += value * tl.load(w2_ptr + b * OUT + c, there & (a == 2), 0.0)[None, :]
        output = tl.dot(gelu(total).to(w3.dtype), w3) + tl.load(b3_ptr + c, there, 0.0).to(tl.float32)[None, :]
        to = ((m // out_width).to(tl.int64) * out_height + first + i) * out_width + j
        inside = here[:, None] & there[None, :] & (first + i < out_height)
        tl.store(y_ptr + to[:, None] * OUT + c[None, :], gelu(output).to(y_ptr.dtype.element_ty), inside)
