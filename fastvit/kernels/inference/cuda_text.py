"""Source text of a CUDA C++ kernel, with definitions of its constants."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch

from fastvit.kernels.inference.gelu import COEFFICIENTS, CUT

# Names of each dtype in numbers.cu and in instructions.
TYPES = {torch.float16: ("Half", "f16"), torch.bfloat16: ("BFloat16", "bf16")}


def kernel_text(name: str, constants: Mapping[str, object], between: str = "") -> str:
    """Return the text of numbers.cu and `name`.cu, after definitions of the constants that both use.

    Args:
        name: file name of the kernel, without ".cu".
        constants: name and value of each constant, besides the coefficients of GELU.
        between: text to insert between the two files.
    """
    gelu = {f"GELU_{i}": f"{value!r}f" for i, value in enumerate(COEFFICIENTS)} | {"GELU_CUT": f"{CUT!r}f"}
    defined = "".join(f"#define {constant} {value}\n" for constant, value in {**gelu, **constants}.items())
    numbers, kernel = ((Path(__file__).parent / f"{part}.cu").read_text() for part in ("numbers", name))
    return f"{defined}{numbers}\n{between}{kernel}"
