"""What the kernels in CUDA C++ that use matrix units have in common."""

from __future__ import annotations

import torch

# Names in numbers.cu and in instructions.
TYPES = {torch.float16: ("Half", "f16"), torch.bfloat16: ("BFloat16", "bf16")}


def four_in_a_row(width: int) -> list[int]:
    """The channel at each place of a product's columns: a thread then has four in a row of each 16.

    Of 8 columns a thread has two next to each other. Where the width leaves 8, these stay as they are.
    """
    places = []
    for place in range(width):
        group, within = place // 16 * 16, place % 16
        j, q, e = within // 8, within % 8 // 2, within % 2
        places.append(group + 4 * q + 2 * j + e if group + 16 <= width else place)
    return places
