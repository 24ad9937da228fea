"""The Triton kernels of training without a GPU: run in Triton's interpreter, and compiled for one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("triton", reason="Triton comes with torch for Linux")


def test_in_the_interpreter() -> None:
    """In a process of its own: Triton looks for the variable when a kernel is defined."""
    tests = Path(__file__).with_name("interpreted_training.py")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tests)]
    environment = {**os.environ, "TRITON_INTERPRET": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tests.parents[2])
    assert done.returncode == 0, done.stdout[-4000:]
    assert " passed" in done.stdout


@pytest.mark.slow
def test_they_compile_for_a_gpu() -> None:
    """To machine code for Hopper: the interpreter takes what the compiler may refuse."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from fastvit.kernels.training import depthwise_triton, passes_triton

    half = dict.fromkeys(("x", "a", "c", "out", "grad", "grad_a", "grad_c", "weight"), "*bf16")
    single = dict.fromkeys(("b", "grad_b", "partial", "slopes", "offset", "mean", "own", "constant"), "*fp32")

    def machine_code(kernel: Any, **constants: int) -> bytes:
        types = half | single | dict.fromkeys(constants, "constexpr")
        signature = {name: types.get(name, "i32") for name in kernel.arg_names}
        source = ASTSource(fn=kernel, signature=signature, constexprs=constants)
        return triton.compile(source, target=GPUTarget("cuda", 90, 32)).asm["cubin"]

    tile = {"PIXELS": 32, "CHANNELS": 64}
    assert machine_code(passes_triton._moments, **tile)
    for kernel in (passes_triton._combine, passes_triton._gradient_sums, passes_triton._gradients):
        assert machine_code(kernel, MAPS=3, GELU=True, **tile)
    for filters, k, stride in ((1, 3, 1), (2, 7, 2)):
        size = {"FILTERS": filters, "K": k, "STRIDE": stride}
        assert machine_code(depthwise_triton._forward, **size, **tile)
        assert machine_code(depthwise_triton._input_gradient, **size, **tile)
        assert machine_code(depthwise_triton._weight_gradient, **size, TAPS=k + 1, PIXELS=16, CHANNELS=32)
