"""Configuration of a FastViT network and of its stages. Needs no torch."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal

from fastvit.errors import UserError

Norm = Literal["batch", "layer"]


@dataclass(frozen=True)
class Stage:
    """Configuration of one stage: patch embedding (not in the first), optional positional encoding, `depth` blocks.

    Attributes:
        width: channels of the stage's output.
        depth: number of blocks.
        mixer: token mixer of every block, a key of `fastvit.model.mixers.MIXERS`.
        mlp_ratio: hidden channels of the ConvFFN, as a multiple of `width`.
        cpe: kernel size of the conditional positional encoding before the blocks; 0 for none.
        embed_se: whether squeeze-and-excitation follows the large kernel of the patch embedding (MCi0 to MCi2).
        embed_act: whether GELU follows the large kernel of the patch embedding (MobileCLIP only).
        norm: normalization before self-attention, "batch" or "layer" (MCi3 and MCi4 use layer norm).
    """

    width: int
    depth: int
    mixer: str = "repmixer"
    mlp_ratio: float = 4.0
    cpe: int = 0
    embed_se: bool = False
    embed_act: bool = False
    norm: Norm = "batch"


@dataclass(frozen=True)
class FastViTConfig:
    """Configuration of a network.

    Attributes:
        stages: configuration of each stage, in order; stage i has stride 4 * 2**i.
        in_chans: channels of the input image.
        num_classes: number of classes; 0 for no head.
        drop_path: stochastic depth rate of the last block; it grows linearly from 0 at the first one.
        layer_scale_init: initial value of every layer scale.
        mixer_kernel: kernel size of RepMixer and of pooling.
        ffn_kernel: kernel size of the depthwise convolution in the ConvFFN.
        embed_kernels: kernel sizes of the parallel branches of a patch embedding, the largest first.
        stem_scale: whether the 3x3 blocks of the stem have a 1x1 branch (MCi3 and MCi4 have none).
        head_dim: channels of an attention head.
        expansion: length of the pooled feature vector, as a multiple of the width of the last stage.
        overparameterized: whether to train parallel branches, which fusion merges (paper, section 3.2.2); if False,
            every RepConv is one convolution with its norm.
    """

    stages: tuple[Stage, ...]
    in_chans: int = 3
    num_classes: int = 1000
    drop_path: float = 0.0
    layer_scale_init: float = 1e-5
    mixer_kernel: int = 3
    ffn_kernel: int = 7
    embed_kernels: tuple[int, ...] = (7, 3)
    stem_scale: bool = True
    head_dim: int = 32
    expansion: int = 2
    overparameterized: bool = True

    @property
    def channels(self) -> tuple[int, ...]:
        """Channels of each stage's output."""
        return tuple(stage.width for stage in self.stages)

    @property
    def strides(self) -> tuple[int, ...]:
        """Stride of each stage's output against the image."""
        return tuple(4 * 2**i for i in range(len(self.stages)))

    def replace(self, **overrides: Any) -> FastViTConfig:
        """Return a copy with some fields changed.

        Raises:
            UserError: a name is not a field of the configuration.
        """
        _refuse_unknown(FastViTConfig, "model option", overrides)
        return dataclasses.replace(self, **overrides)

    def with_stages(self, **overrides: Any) -> FastViTConfig:
        """Return a copy with some fields of every stage changed, such as mixer="pooling".

        Raises:
            UserError: a name is not a field of a stage.
        """
        _refuse_unknown(Stage, "option of a stage", overrides)
        return self.replace(stages=tuple(dataclasses.replace(stage, **overrides) for stage in self.stages))

    def to_dict(self) -> dict[str, Any]:
        """Return the configuration as plain dicts and lists, for JSON."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> FastViTConfig:
        """Return the configuration that `to_dict` has written.

        Raises:
            UserError: a field is unknown or missing.
        """
        try:
            stages = tuple(Stage(**stage) for stage in data["stages"])
            rest = {key: value for key, value in data.items() if key != "stages"}
            rest["embed_kernels"] = tuple(rest.get("embed_kernels", (7, 3)))
            return cls(stages=stages, **rest)
        except (KeyError, TypeError) as error:
            raise UserError(f"the model configuration does not fit this version of fastvit: {error}") from error


def _refuse_unknown(kind: type[Stage] | type[FastViTConfig], what: str, overrides: Mapping[str, Any]) -> None:
    known = {field.name for field in fields(kind)}
    if unknown := sorted(set(overrides) - known):
        raise UserError(f"unknown {what}: {', '.join(unknown)}; use one of {', '.join(sorted(known))}")
