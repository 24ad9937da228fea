"""Backbone: stem and stages, with a feature map from each stage."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from fastvit.model.blocks import PatchEmbedding, Stem, make_block
from fastvit.model.config import FastViTConfig
from fastvit.model.layers import leave_one_branch
from fastvit.model.mixers import RepCPE


class FastViTStage(nn.Module):
    """Stage of the backbone: patch embedding (not in the first stage), positional encoding, blocks.

    Args:
        config: configuration of the network.
        index: index of the stage, from 0.
        drop_paths: stochastic depth rate of each block.
    """

    def __init__(self, config: FastViTConfig, index: int, drop_paths: list[float]) -> None:
        super().__init__()
        stage = config.stages[index]
        self.embed = (
            PatchEmbedding(
                config.stages[index - 1].width, stage.width, config.embed_kernels, stage.embed_se, stage.embed_act
            )
            if index
            else nn.Identity()
        )
        self.cpe = RepCPE(stage.width, stage.cpe) if stage.cpe else nn.Identity()
        self.blocks = nn.ModuleList(make_block(stage, config, rate) for rate in drop_paths)
        self.grad_checkpointing = False

    def forward(self, x: Tensor) -> Tensor:
        x = self.cpe(self.embed(x))
        for block in self.blocks:
            x = _recomputed(block, x) if self.grad_checkpointing and torch.is_grad_enabled() else block(x)
        return x


class Backbone(nn.Module):
    """FastViT without a head: (B, in_chans, H, W) images -> one map per stage.

    Every map is the output of the last block of its stage. The official feature mode leaves out the last stage of the
    attention variants.

    Attributes:
        config: configuration of the network.
        channels: channels of each map.
        strides: stride of each map against the image (4, 8, 16, 32); sides of maps are rounded up.
    """

    def __init__(self, config: FastViTConfig) -> None:
        super().__init__()
        self.config = config
        self.stem = Stem(config.in_chans, config.stages[0].width, config.stem_scale)
        depths = [stage.depth for stage in config.stages]
        # Rates are computed on the CPU, so that they have values also under torch.device("meta").
        rates = torch.linspace(0, config.drop_path, sum(depths), dtype=torch.float64, device="cpu").split(depths)
        self.stages = nn.ModuleList(FastViTStage(config, i, rate.tolist()) for i, rate in enumerate(rates))
        if not config.overparameterized:
            leave_one_branch(self)

    @property
    def channels(self) -> tuple[int, ...]:
        """Channels of each map."""
        return self.config.channels

    @property
    def strides(self) -> tuple[int, ...]:
        """Stride of each map against the image."""
        return self.config.strides

    def forward(self, x: Tensor) -> list[Tensor]:
        x = self.stem(x)
        maps = []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return maps

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Switch gradient checkpointing on or off: keep only block inputs and recompute in the backward pass."""
        for stage in cast(Iterable[FastViTStage], self.stages):
            stage.grad_checkpointing = enable


def _recomputed(block: nn.Module, x: Tensor) -> Tensor:
    if torch.compiler.is_compiling():  # a compiled graph updates statistics once, even if it recomputes the block
        return checkpoint(block, x, use_reentrant=False)

    def contexts() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        return nullcontext(), _frozen_statistics(block)

    return checkpoint(block, x, use_reentrant=False, context_fn=contexts)


@contextmanager
def _frozen_statistics(block: nn.Module) -> Iterator[None]:
    """Keep running statistics unchanged: recomputing a block would otherwise count its batch twice."""
    norms = [m for m in block.modules() if isinstance(m, _BatchNorm)]
    settings = [(norm.momentum, norm.num_batches_tracked) for norm in norms]
    for norm in norms:
        norm.momentum, norm.num_batches_tracked = 0.0, None
    try:
        yield
    finally:
        for norm, (momentum, count) in zip(norms, settings, strict=True):
            norm.momentum, norm.num_batches_tracked = momentum, count
