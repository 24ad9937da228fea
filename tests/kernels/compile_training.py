"""Compile the Triton kernels of training for Hopper: the interpreter takes what the compiler may refuse.

Run by `test_training_triton`, in a process in which Triton does not interpret.
"""

from __future__ import annotations

from typing import Any

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from fastvit.kernels.training import depthwise_triton, passes_triton

HALF = dict.fromkeys(("x", "a", "c", "out", "grad", "grad_a", "grad_c", "weight"), "*bf16")
SINGLE = dict.fromkeys(("b", "grad_b", "partial", "slopes", "offset", "mean", "own", "constant"), "*fp32")


def machine_code(kernel: Any, **constants: int) -> bytes:
    types = HALF | SINGLE | dict.fromkeys(constants, "constexpr")
    signature = {name: types.get(name, "i32") for name in kernel.arg_names}
    source = ASTSource(fn=kernel, signature=signature, constexprs=constants)
    return triton.compile(source, target=GPUTarget("cuda", 90, 32)).asm["cubin"]


def main() -> None:
    tile = {"PIXELS": 32, "CHANNELS": 64}
    assert machine_code(passes_triton._moments, **tile)
    for kernel in (passes_triton._combine, passes_triton._gradient_sums, passes_triton._gradients):
        assert machine_code(kernel, MAPS=3, GELU=True, **tile)
    for filters, k, stride in ((1, 3, 1), (2, 7, 2)):
        size = {"FILTERS": filters, "K": k, "STRIDE": stride}
        assert machine_code(depthwise_triton._forward, **size, **tile)
        assert machine_code(depthwise_triton._input_gradient, **size, **tile)
        assert machine_code(depthwise_triton._weight_gradient, **size, TAPS=k + 1, PIXELS=16, CHANNELS=32)
    print("compiled")


if __name__ == "__main__":
    main()
