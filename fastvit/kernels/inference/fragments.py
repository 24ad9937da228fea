"""Order of weights in which the lanes of a warp need them for matrix instructions."""

from __future__ import annotations

from torch import Tensor


def four_in_a_row(width: int) -> list[int]:
    """Return the channel for each column of a product, so that a thread has four channels in a row of each 16.

    A thread has two adjacent columns of each 8. If the width leaves a rest of 8, these keep their order.
    """
    places = []
    for place in range(width):
        group, within = place // 16 * 16, place % 16
        j, q, e = within // 8, within % 8 // 2, within % 2
        places.append(group + 4 * q + 2 * j + e if group + 16 <= width else place)
    return places


def fragments(right: Tensor) -> Tensor:
    """Return what each lane has of the right side of 16 x 8 x 16 products: (N, K) -> (K / 16, N / 8, 32, 4)."""
    tiles = right.reshape(right.shape[0] // 8, 8, right.shape[1] // 16, 2, 4, 2)  # of N; n; of K; half, quad, number
    return tiles.permute(2, 0, 1, 4, 3, 5).reshape(right.shape[1] // 16, right.shape[0] // 8, 32, 4).contiguous()
