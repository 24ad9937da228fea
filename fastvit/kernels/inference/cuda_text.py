"""The text of a kernel in CUDA C++, with what it leaves open."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch

from fastvit.kernels.inference.gelu import COEFFICIENTS, CUT

# Names in numbers.cu and in instructions.
TYPES = {torch.float16: ("Half", "f16"), torch.bfloat16: ("BFloat16", "bf16")}


def kernel_text(name: str, constants: Mapping[str, object], between: str = "") -> str:
    """The text of numbers.cu and `name`.cu behind definitions of the names that they leave open.

    Args:
        name: of the kernel.
        constants: what they leave open beside GELU's coefficients.
        between: what the second one needs behind the first.
    """
    gelu = {f"GELU_{i}": f"{value!r}f" for i, value in enumerate(COEFFICIENTS)} | {"GELU_CUT": f"{CUT!r}f"}
    defined = "".join(f"#define {constant} {value}\n" for constant, value in {**gelu, **constants}.items())
    numbers, kernel = ((Path(__file__).parent / f"{part}.cu").read_text() for part in ("numbers", name))
    return f"{defined}{numbers}\n{between}{kernel}"
