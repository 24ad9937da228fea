"""Conversions of rotations, batched and differentiable."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def from_axis_angle(vectors: Tensor) -> Tensor:
    """Convert axis-angle vectors (..., 3), in radians, to rotation matrices (..., 3, 3); differentiable at 0."""
    x, y, z = vectors.unbind(-1)
    zero = torch.zeros_like(x)
    cross = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], -1).unflatten(-1, (3, 3))
    return torch.linalg.matrix_exp(cross)


def from_six(values: Tensor) -> Tensor:
    """Convert the 6D representation (..., 6) to rotation matrices (..., 3, 3) (arXiv 1812.07035).

    The six values are two vectors that are not parallel. The first column is the first vector, normalized; the second
    is the part of the second vector perpendicular to it, normalized; the third is their cross product.
    """
    first = F.normalize(values[..., :3], dim=-1)
    second = values[..., 3:]
    second = F.normalize(second - (first * second).sum(-1, keepdim=True) * first, dim=-1)
    (a, b, c), (d, e, f) = first.unbind(-1), second.unbind(-1)
    # Written out, because not every runtime supports a cross product.
    third = torch.stack([b * f - c * e, c * d - a * f, a * e - b * d], -1)
    return torch.stack([first, second, third], -1)


def to_six(matrices: Tensor) -> Tensor:
    """Convert rotation matrices (..., 3, 3) to their first two columns (..., 6), inverting `from_six`."""
    return torch.cat([matrices[..., 0], matrices[..., 1]], -1)
