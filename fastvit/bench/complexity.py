"""What a network costs by counting: parameters and multiply-accumulates. Nothing is computed, so it takes no time."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from fastvit.model.config import FastViTConfig
from fastvit.weights.layouts import skeleton


@dataclass(frozen=True)
class Complexity:
    """Of a network.

    Attributes:
        params: parameters in train form.
        params_fused: parameters after `fastvit.fuse`.
        gmacs: multiply-accumulates of the fused form on one image, in units of 1e9.
    """

    params: int
    params_fused: int
    gmacs: float


def complexity(config: FastViTConfig, size: tuple[int, int]) -> Complexity:
    """Count a network at a height and width in pixels."""
    fused = skeleton(config, "fused")
    with FlopCounterMode(display=False) as counter:
        fused(torch.empty(1, config.in_chans, *size, device="meta"))
    # One multiply-accumulate is two floating-point operations.
    return Complexity(_parameters(skeleton(config, "train")), _parameters(fused), counter.get_total_flops() / 2e9)


def _parameters(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())
