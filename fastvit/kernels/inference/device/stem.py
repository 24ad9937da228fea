"""Stem kernel: 3x3 stride 2, depthwise 3x3 stride 2 and 1x1, each with GELU; the maps between never leave the chip.

A program has BLOCK_M output columns, of any images, and computes ROWS rows from top to bottom. An output needs three
rows and three columns of the first convolution's map. Its third row is the first row of the next output: its sum for
that output is kept, so that six pixels of nine are computed per output. Both neighbors compute the columns they share.
"""

from __future__ import annotations

import triton
import triton.language as tl

from fastvit.kernels.inference.device.gelu import gelu


@triton.jit
def _pixels(x_ptr, start, row, column, here, height, width, channel, down, along, w, IN: tl.constexpr):
    """Compute (BLOCK_M, WIDTH) pixels of the first convolution's map, zero outside it; start is each image's offset."""
    k = tl.arange(0, w.shape[0])
    there = here & (row >= 0) & (row < (height + 1) // 2) & (column >= 0) & (column < (width + 1) // 2)
    y = (2 * row - 1 + k // 3 % 3)[None, :]
    x = (2 * column - 1)[:, None] + (k % 3)[None, :]
    inside = there[:, None] & (k < IN * 9)[None, :] & (y >= 0) & (y < height) & (x >= 0) & (x < width)
    offset = start[:, None] + ((k // 9 * channel)[None, :] + y * down + x * along)
    # The row of w after the taps is the bias.
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
    """Compute the stem.

    Args:
        x_ptr: images, with IN channels and any strides.
        w1_ptr: weights of the first convolution, (TAPS, OUT): IN * 9 rows of weights, one row of biases, zeros.
        w2_ptr: weights of the depthwise convolution, (9, OUT), float32.
        b2_ptr: biases of the depthwise convolution, (OUT,), float32.
        w3_ptr: weights of the 1x1 convolution, (OUT, OUT).
        b3_ptr: biases of the 1x1 convolution, (OUT,).
        y_ptr: output, (B, out_height, out_width, OUT).
        columns: output columns of all images.
        height: height of the images.
        width: width of the images.
        out_height: height of the output.
        out_width: width of the output.
        image: stride of the images in memory, in elements; likewise below.
        channel: stride of the channels.
        row: stride of the rows.
        column: stride of the columns.
        IN: channels of the images.
        OUT: channels of the output.
        TAPS: power of two that is greater than IN * 9.
        WIDTH: power of two that is not less than OUT.
        ROWS: output rows of a program.
        BLOCK_M: output columns of a program.
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
    # These loops must not be unrolled or pipelined: the compiler would load all pixels at once, with too few registers.
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
