"""Optimizer, learning rate schedule and weight decay schedule of a recipe."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable
from typing import Any, cast

import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

from fastvit.model.backbone import Backbone, FastViTStage
from fastvit.model.layers import LayerScale
from fastvit.training.options import OptimOptions


def parameter_groups(model: nn.Module, options: OptimOptions) -> list[dict[str, Any]]:
    """Return the trainable parameters grouped by weight decay and learning rate.

    Each group has `params`, `lr`, `weight_decay` and `layer`. Weights of convolutions and linear layers have weight
    decay; norms, biases and layer scales have none. The official code excludes parameters with at most one dimension;
    layer scales have shape (C, 1, 1) and so get weight decay there, as here with `options.decay_layer_scales`. With
    `options.layer_decay` below 1, the learning rate of each layer (stem, every block with the patch embedding before
    it, head) is that factor times the one of the next layer.

    Args:
        model: model with trainable parameters.
        options: section `optim` of the recipe.
    """
    scales = {id(p) for module in model.modules() if isinstance(module, LayerScale) for p in module.parameters()}
    depths, last = layers(model)
    groups: dict[tuple[int, bool], list[nn.Parameter]] = defaultdict(list)
    for parameter in model.parameters():
        if parameter.requires_grad:
            decays = parameter.ndim > 1 and (options.decay_layer_scales or id(parameter) not in scales)
            layer = depths.get(id(parameter), last) if options.layer_decay < 1 else last
            groups[layer, decays].append(parameter)
    return [
        {
            "params": parameters,
            "lr": options.lr * options.layer_decay ** (last - layer),
            "weight_decay": options.weight_decay if decays else 0.0,
            "layer": layer,
        }
        for (layer, decays), parameters in sorted(groups.items(), key=lambda group: group[0])
    ]


def layers(model: nn.Module) -> tuple[dict[int, int], int]:
    """Return the layer of each backbone parameter by its id (0 for the stem), and the layer of the head."""
    depths: dict[int, int] = {}
    last = 0
    for backbone in (module for module in model.modules() if isinstance(module, Backbone)):
        depths |= {id(p): 0 for p in backbone.stem.parameters()}
        layer = 0
        for stage in cast(Iterable[FastViTStage], backbone.stages):
            before = [p for part in (stage.embed, stage.cpe) for p in part.parameters()]
            depths |= {id(p): layer + 1 for p in before}
            for block in stage.blocks:
                layer += 1
                depths |= {id(p): layer for p in block.parameters()}
        last = max(last, layer + 1)
    return depths, last


def learning_rate(step: int, steps: int, warmup: int, options: OptimOptions, epoch: float = 1.0) -> float:
    """Return the learning rate of a step.

    It grows linearly from warmup_lr to lr over `warmup` steps, decays to min_lr at `steps`, and stays there. The
    official code changes the learning rate once per epoch; here it changes at every step.

    Args:
        step: optimizer step, from 0.
        steps: number of steps of the run without the cool-down.
        warmup: number of warm-up steps.
        options: section `optim` of the recipe.
        epoch: number of steps of an epoch, for `milestones`.
    """
    if step < warmup:
        return options.warmup_lr + (options.lr - options.warmup_lr) * step / warmup
    if options.schedule == "step":
        return options.lr * 0.1 ** sum(step >= round(epoch * milestone) for milestone in options.milestones)
    progress = (step - warmup) / max(steps - warmup, 1)
    if options.schedule == "poly":
        return options.min_lr + (options.lr - options.min_lr) * max(1 - progress, 0.0) ** options.power
    return _cosine(options.lr, options.min_lr, progress)


def weight_decay(step: int, steps: int, options: OptimOptions) -> float:
    """Return the weight decay of a step: constant, or along a cosine from weight_decay to weight_decay_end.

    Args:
        step: optimizer step, from 0.
        steps: number of steps of the run.
        options: section `optim` of the recipe.
    """
    if options.weight_decay_end is None:
        return options.weight_decay
    return _cosine(options.weight_decay, options.weight_decay_end, step / max(steps, 1))


def _cosine(start: float, end: float, progress: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * min(progress, 1.0))) / 2


def configure(model: nn.Module, steps: int, epochs: int, options: OptimOptions) -> dict[str, Any]:
    """Return AdamW and a schedule that is updated every step, in the form of Lightning's configure_optimizers.

    Args:
        model: model whose parameters are trained.
        steps: number of optimizer steps of the run, including the cool-down.
        epochs: number of epochs of the run without the cool-down.
        options: section `optim` of the recipe.
    """
    optimizer = torch.optim.AdamW(parameter_groups(model, options), betas=options.betas, foreach=True)
    epoch = steps / (epochs + options.cooldown_epochs)
    annealed, warmup = round(epoch * epochs), round(epoch * options.warmup_epochs)

    def factor(step: int) -> float:
        return learning_rate(step, annealed, warmup, options, epoch) / options.lr

    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": LambdaLR(optimizer, factor), "interval": "step"}}
