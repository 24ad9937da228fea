"""Fused network as a list of steps, made once from its modules, for images of any shape."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import cast

from torch import Tensor, nn

from fastvit.kernels.inference.attention import Attention
from fastvit.kernels.inference.depthwise import Depthwise
from fastvit.kernels.inference.feed_forward import FeedForward
from fastvit.kernels.inference.gated_pool import GatedPool
from fastvit.kernels.inference.in_torch import Classify, LayerNorm, Mapped
from fastvit.kernels.inference.pointwise import Pointwise
from fastvit.kernels.inference.stem import Stem
from fastvit.kernels.inference.step import Choice, Step
from fastvit.model.backbone import Backbone, FastViTStage
from fastvit.model.blocks import ConvFFN, MobileOne, PatchEmbedding, ResidualBlock, SkipBlock
from fastvit.model.classifier import FastViT
from fastvit.model.layers import SqueezeExcite
from fastvit.model.mixers import SelfAttention


@dataclass(frozen=True)
class Node:
    """Step at one position of the network.

    Attributes:
        step: computation of this node.
        branches: whether a residual branch begins here, so that the input map is kept.
        joins: whether the branch ends here, so that the step adds the kept map.
        emits: whether the result is an output of the network.
    """

    step: Step
    branches: bool = False
    joins: bool = False
    emits: bool = False


Chooser = Callable[[Step, Tensor, Tensor | None], Choice]


@dataclass(frozen=True)
class Plan:
    """Network with a kernel for each step, for images of one shape.

    Attributes:
        nodes: nodes of the network, in order.
        choices: kernel for each node.
    """

    nodes: Sequence[Node]
    choices: Sequence[Choice]

    def __call__(self, x: Tensor) -> list[Tensor]:
        """Return the outputs, NHWC or (B, ...), for (B, H, W, C) images."""
        outputs = []
        kept: Tensor | None = None
        for node, choice in zip(self.nodes, self.choices, strict=True):
            kept = x if node.branches else kept
            x = node.step.run(x, kept if node.joins else None, choice)
            kept = None if node.joins else kept
            if node.emits:
                outputs.append(x)
        return outputs


def make_plan(nodes: Sequence[Node], x: Tensor, choose: Chooser) -> Plan:
    """Run the network once, and choose a kernel for each step with the map that the step gets.

    Args:
        nodes: nodes of the network, in order.
        x: (B, H, W, C) images.
        choose: function that returns the choice for a step, its input map and its residual map.
    """
    choices = []
    kept: Tensor | None = None
    for node in nodes:
        kept = x if node.branches else kept
        residual = kept if node.joins else None
        choices.append(choose(node.step, x, residual))
        x = node.step.run(x, residual, choices[-1])
    return Plan(nodes, choices)


def unknown_part(network: nn.Module) -> str | None:
    """Return the name of a block or token mixer of a fused network that no step supports; None if all are supported."""
    blocks = [block for stage in network.modules() if isinstance(stage, FastViTStage) for block in stage.blocks]
    for block in blocks:
        mixer = getattr(block, "token_mixer", block)
        fused = isinstance(block, SkipBlock) and isinstance(mixer, nn.Conv2d)
        if not fused and not (isinstance(block, ResidualBlock) and isinstance(mixer, SelfAttention)):
            return type(mixer).__name__
    return None


def classifier_nodes(model: FastViT) -> list[Node]:
    """Return the nodes of a fused classifier; its only output is the logits."""
    nodes = [replace(node, emits=False) for node in backbone_nodes(model.backbone)]
    expansion = model.expansion
    nodes.append(Node(_convolution(expansion.conv, act=False)))
    nodes.append(Node(GatedPool(cast(SqueezeExcite, expansion.se))))
    nodes.append(Node(Classify(model.head), emits=True))
    return nodes


def backbone_nodes(backbone: Backbone) -> list[Node]:
    """Return the nodes of a fused backbone; its outputs are the feature maps of the stages."""
    first, second, third = (cast(nn.Conv2d, cast(MobileOne, part).conv) for part in backbone.stem)
    nodes = [Node(Stem(first, second, third))]
    for stage in backbone.stages:
        *body, last = _stage(cast(FastViTStage, stage))
        nodes += [*body, replace(last, emits=True)]
    return nodes


def _stage(stage: FastViTStage) -> Iterable[Node]:
    if isinstance(stage.embed, PatchEmbedding):
        yield from _patch_embedding(stage.embed)
    if isinstance(stage.cpe, nn.Conv2d):
        yield Node(Depthwise(stage.cpe))
    for block in stage.blocks:
        yield from _skip_block(block) if isinstance(block, SkipBlock) else _attention(cast(ResidualBlock, block))


def _patch_embedding(embed: PatchEmbedding) -> Iterable[Node]:
    act = isinstance(embed.act, nn.GELU)
    gated = isinstance(embed.se, SqueezeExcite)
    large = cast(nn.Conv2d, embed.large)
    yield Node(Depthwise(large, act and not gated))
    if gated:
        name = f"SE{', GELU' if act else ''} {large.out_channels}"
        yield Node(Mapped(name, embed.se, embed.act))
    yield from _mobile_one(embed.point)


def _mobile_one(block: MobileOne) -> Iterable[Node]:
    if isinstance(block.se, SqueezeExcite):
        yield Node(_convolution(block.conv, act=False))
        yield Node(Mapped(f"SE, GELU {block.se.expand.out_channels}", block.se, block.act))
    else:
        yield Node(_convolution(block.conv, act=True))


def _convolution(module: nn.Module, act: bool) -> Step:
    conv = cast(nn.Conv2d, module)
    return Pointwise(conv, act) if conv.groups == 1 else Depthwise(conv, act)


def _skip_block(block: SkipBlock) -> Iterable[Node]:
    yield Node(Depthwise(cast(nn.Conv2d, block.token_mixer)))
    yield from _ffn(block.ffn)


def _ffn(ffn: ConvFFN) -> Iterable[Node]:
    yield Node(Depthwise(cast(nn.Conv2d, ffn.conv)), branches=True)
    yield Node(FeedForward(ffn.fc1, ffn.fc2), joins=True)


def _attention(block: ResidualBlock) -> Iterable[Node]:
    mixer = cast(SelfAttention, block.token_mixer)
    qkv = Pointwise(mixer.qkv)
    if isinstance(block.norm, nn.LayerNorm):
        yield Node(LayerNorm(block.norm), branches=True)
        yield Node(qkv)
    else:
        yield Node(qkv, branches=True)
    yield Node(Attention(mixer.proj.in_features, mixer.head_dim))
    yield Node(Pointwise(mixer.proj, joins=True), joins=True)
    yield from _ffn(block.ffn)
