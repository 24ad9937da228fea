"""How the lanes of a warp share the numbers of a product of the matrix units, for what packs weights."""

from __future__ import annotations

from torch import Tensor


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


def fragments(right: Tensor) -> Tensor:
    """(N, K) -> (K / 16, N / 8, 32, 4): what each lane has of the right side of 16 x 8 x 16 products."""
    tiles = right.reshape(right.shape[0] // 8, 8, right.shape[1] // 16, 2, 4, 2)  # of N; n; of K; half, quad, number
    return tiles.permute(2, 0, 1, 4, 3, 5).reshape(right.shape[1] // 16, right.shape[0] // 8, 32, 4).contiguous()
