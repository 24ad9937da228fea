"""1x1 convolution, or linear layer, with bias, GELU and residual in its epilogue."""

from __future__ import annotations

import triton
import triton.language as tl

from fastvit.kernels.inference.device.gelu import gelu

# Tiles of so many rows in a column of programs share their weights in the L2 cache.
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
    """X (rows, IN), w (OUT, IN), b (OUT,), r and y (rows, OUT)."""
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
