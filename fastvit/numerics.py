"""Differences between outputs, which verify fused and exported models."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.utils import _pytree as pytree


@dataclass(frozen=True)
class Differences:
    """Differences between outputs and their reference, over all output tensors.

    Attributes:
        max_abs: largest absolute difference of any element.
        relative: largest absolute difference divided by the largest absolute reference of the same tensor; the maximum
            over the tensors.
        cosine: smallest cosine similarity of any tensor with its reference.
        top1: fraction of rows with the same arg max if the output is one (B, classes) tensor; else None.
    """

    max_abs: float
    relative: float
    cosine: float
    top1: float | None

    def __str__(self) -> str:
        top1 = "" if self.top1 is None else f", same top-1 on {self.top1:.2%}"
        return f"max abs {self.max_abs:.2e}, relative {self.relative:.2e}, cosine {self.cosine:.9f}{top1}"


def compare(reference: object, output: object) -> Differences:
    """Compare two nested structures of tensors or arrays of equal shapes, in float64 on the CPU.

    Raises:
        ValueError: the structures or shapes differ, or there are no tensors in them.
    """
    pairs = list(zip(_tensors(reference), _tensors(output), strict=True))
    if not pairs:
        raise ValueError("the outputs contain no tensors to compare")
    if shapes := [(tuple(a.shape), tuple(b.shape)) for a, b in pairs if a.shape != b.shape]:
        raise ValueError(f"outputs have different shapes: {shapes}")
    gaps = [(a - b).abs().max().item() for a, b in pairs]
    # torch's max returns NaN if either side has one; Python's max may not.
    worst = torch.tensor(gaps, dtype=torch.float64)
    peaks = torch.tensor([a.abs().max().item() for a, _ in pairs], dtype=torch.float64)
    cosines = [torch.cosine_similarity(a.flatten(), b.flatten(), dim=0).item() for a, b in pairs]
    first, second = pairs[0]
    is_logits = len(pairs) == 1 and first.ndim == 2
    return Differences(
        max_abs=worst.max().item(),
        relative=(worst / peaks.clamp_min(torch.finfo(torch.float64).tiny)).max().item(),
        cosine=torch.tensor(cosines).min().item(),
        top1=(first.argmax(1) == second.argmax(1)).double().mean().item() if is_logits else None,
    )


def _tensors(tree: object) -> list[torch.Tensor]:
    leaves = pytree.tree_leaves(tree)
    return [torch.as_tensor(leaf).detach().to("cpu", torch.float64) for leaf in leaves if leaf is not None]
