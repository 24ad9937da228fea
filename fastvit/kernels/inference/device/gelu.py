"""GELU for Triton kernels; `fastvit.kernels.inference.gelu` explains the formula."""

from __future__ import annotations

import triton
import triton.language as tl

from fastvit.kernels.inference import gelu as reference

# Triton accepts globals only as constexpr.
CUT = tl.constexpr(reference.CUT)
C0, C1, C2, C3, C4, C5 = (tl.constexpr(value) for value in reference.COEFFICIENTS)


@triton.jit
def gelu(x):
    """Compute GELU of float32 values."""
    t = tl.minimum(tl.abs(x), CUT)
    power = ((((C5 * t + C4) * t + C3) * t + C2) * t + C1) * t + C0
    # NaN stays NaN.
    return tl.maximum(x, 0.0, propagate_nan=tl.PropagateNan.ALL) - t * tl.exp2(power)
