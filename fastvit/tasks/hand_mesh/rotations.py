"""Rotations in the forms that networks and hand models have them, batched and differentiable."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def from_axis_angle(vectors: Tensor) -> Tensor:
    """(..., 3) axes times angles in radians -> (..., 3, 3) rotation matrices; smooth also at 0."""
    x, y, z = vectors.unbind(-1)
    zero = torch.zeros_like(x)
    cross = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], -1).unflatten(-1, (3, 3))
    return torch.linalg.matrix_exp(cross)


def from_six(numbers: Tensor) -> Tensor:
    """(..., 6) two columns, of any length and angle but 0 -> (..., 3, 3) rotation matrices (arXiv 1812.07035).

    The first column is made a unit vector, the second one perpendicular to it, the third is their product.
    """
    first = F.normalize(numbers[..., :3], dim=-1)
    second = numbers[..., 3:]
    second = F.normalize(second - (first * second).sum(-1, keepdim=True) * first, dim=-1)
    (a, b, c), (d, e, f) = first.unbind(-1), second.unbind(-1)
    # Written out: not every runtime that networks are exported to has a cross product.
    third = torch.stack([b * f - c * e, c * d - a * f, a * e - b * d], -1)
    return torch.stack([first, second, third], -1)


def to_six(matrices: Tensor) -> Tensor:
    """(..., 3, 3) rotation matrices -> (..., 6), their first two columns: the inverse of `from_six`."""
    return torch.cat([matrices[..., 0], matrices[..., 1]], -1)
