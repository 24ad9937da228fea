"""Parameters and multiply-accumulates of networks, counted without computing anything."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from fastvit.model.config import FastViTConfig
from fastvit.weights.layouts import skeleton


@dataclass(frozen=True)
class Complexity:
    """Size of a network.

    Attributes:
        params: number of parameters in train form.
        params_fused: number of parameters after `fastvit.fuse`.
        gmacs: multiply-accumulates of the fused form for one image, in 1e9.
    """

    params: int
    params_fused: int
    gmacs: float


def complexity(config: FastViTConfig, size: tuple[int, int]) -> Complexity:
    """Return the complexity of a network for images of a height and width in pixels."""
    fused = skeleton(config, "fused")
    gmacs = work(fused, torch.empty(1, config.in_chans, *size, device="meta")).gmacs
    return Complexity(_parameters(skeleton(config, "train")), _parameters(fused), gmacs)


@dataclass(frozen=True)
class Work:
    """Arithmetic and memory traffic of one call of a network.

    Attributes:
        gmacs: multiply-accumulates, in 1e9.
        megabytes: bytes read and written, in 1e6, in float32, if every layer reads its input and weights from memory
            and writes its output there; caches and fused layers save a part of it.
    """

    gmacs: float
    megabytes: float


def work(network: nn.Module, images: Tensor) -> Work:
    """Count one call; a network and images on the device "meta" cost nothing.

    Args:
        network: network in eval mode.
        images: (B, C, H, W).
    """
    elements = sum(parameter.numel() for parameter in network.parameters())

    def count(_: nn.Module, inputs: tuple[object, ...], output: object) -> None:
        nonlocal elements
        elements += sum(tensor.numel() for tensor in (*inputs, output) if isinstance(tensor, Tensor))

    leaves = [module for module in network.modules() if not list(module.children())]
    hooks = [module.register_forward_hook(count) for module in leaves]
    try:
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            network(images)
    finally:
        for hook in hooks:
            hook.remove()
    # One multiply-accumulate is two floating-point operations.
    return Work(counter.get_total_flops() / 2e9, 4 * elements / 1e6)


def _parameters(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())
