"""Optimizer and schedule of a recipe."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

from fastvit.model.layers import LayerScale
from fastvit.training.recipe import OptimOptions


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Two groups: weights of convolutions and linear maps decay; norms, biases and layer scales do not.

    Layer scales have shape (C, 1, 1), so a rule by the number of dimensions misses them, as the official code does.
    """
    scales = {id(p) for module in model.modules() if isinstance(module, LayerScale) for p in module.parameters()}
    trained = [p for p in model.parameters() if p.requires_grad]
    decayed = [p for p in trained if p.ndim > 1 and id(p) not in scales]
    plain = [p for p in trained if p.ndim <= 1 or id(p) in scales]
    return [{"params": decayed, "weight_decay": weight_decay}, {"params": plain, "weight_decay": 0.0}]


def learning_rate(step: int, steps: int, warmup: int, options: OptimOptions) -> float:
    """Learning rate of a step: linear from warmup_lr to lr over `warmup` steps, then a cosine to min_lr at `steps`."""
    if step < warmup:
        return options.warmup_lr + (options.lr - options.warmup_lr) * step / warmup
    progress = min((step - warmup) / max(steps - warmup, 1), 1.0)
    return options.min_lr + (options.lr - options.min_lr) * (1 + math.cos(math.pi * progress)) / 2


def configure(model: nn.Module, steps: int, epochs: int, options: OptimOptions) -> dict[str, Any]:
    """What Lightning's configure_optimizers returns: AdamW and a schedule stepped every batch."""
    optimizer = torch.optim.AdamW(
        parameter_groups(model, options.weight_decay), lr=options.lr, betas=options.betas, foreach=True
    )
    warmup = round(options.warmup_epochs * steps / epochs)

    def factor(step: int) -> float:
        return learning_rate(step, steps, warmup, options) / options.lr

    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": LambdaLR(optimizer, factor), "interval": "step"}}
