"""Kernel of a 1x1 convolution or linear layer, with bias, GELU and residual in its epilogue."""

from __future__ import annotations

import triton
import triton.language as tl

from fastvit.kernels.inference.device.gelu import gelu

# Number of neighboring row tiles whose programs share weights in the L2 cache.
GROUP = tl.constexpr(8)


@triton.jit(do_not_specialize=["rows"])
def pointwise(
    x_ptr,
    w_ptr,
    b_ptr,
    r_ptr,
    y_ptr,
    rows,
    IN: tl.constexpr,
    OUT: tl.constexpr,
    ACT: tl.constexpr,
    RESIDUAL: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """Multiply by a matrix, add the bias, then optionally apply GELU and add a residual.

    Args:
        x_ptr: input, (rows, IN).
        w_ptr: weights, (OUT, IN).
        b_ptr: biases, (OUT,).
        r_ptr: residual, (rows, OUT); read only if RESIDUAL.
        y_ptr: output, (rows, OUT).
        rows: number of pixels.
        IN: channels of the input.
        OUT: channels of the output.
        ACT: whether to apply GELU.
        RESIDUAL: whether to add the residual.
        BLOCK_M: rows of a program.
        BLOCK_N: output channels of a program.
        BLOCK_K: input channels at a time.
    """
    program = tl.program_id(0)
    down, across = tl.cdiv(rows, BLOCK_M), tl.cdiv(OUT, BLOCK_N)
    group = program // (GROUP * across)
    size = tl.minimum(down - group * GROUP, GROUP)
    m = (group * GROUP + program % (GROUP * across) % size) * BLOCK_M + tl.arange(0, BLOCK_M)
    n = program % (GROUP * across) // size * BLOCK_N + tl.arange(0, BLOCK_N)
    k = tl.arange(0, BLOCK_K)
    here, there = m < rows, n < OUT
    x_ptr += m.to(tl.int64)[:, None] * IN
    total = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    for start in range(0, IN, BLOCK_K):
        inside = start + k < IN
        x = tl.load(x_ptr + (start + k)[None, :], here[:, None] & inside[None, :], 0.0)
        w = tl.load(w_ptr + n[None, :] * IN + (start + k)[:, None], inside[:, None] & there[None, :], 0.0)
        total = tl.dot(x, w, total)
    total += tl.load(b_ptr + n, there, 0.0).to(tl.float32)[None, :]
    if ACT:
        total = gelu(total)
    offset = m.to(tl.int64)[:, None] * OUT + n[None, :]
    inside = here[:, None] & there[None, :]
    if RESIDUAL:
        total += tl.load(r_ptr + offset, inside, 0.0).to(tl.float32)
    tl.store(y_ptr + offset, total.to(y_ptr.dtype.element_ty), inside)
