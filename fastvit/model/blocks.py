"""Stem, patch embedding and the blocks of a stage, as in figure 2 of the paper."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor, nn

from fastvit.model.config import FastViTConfig, Stage
from fastvit.model.layers import ConvNorm, DropPath, LayerNorm2d, LayerScale, RepConv, SqueezeExcite
from fastvit.model.mixers import find_mixer


class MobileOne(nn.Module):
    """MobileOne block: RepConv, optional squeeze-and-excitation, GELU (arXiv 2206.04040).

    Args:
        in_chs: input channels.
        out_chs: output channels.
        kernels: kernel size of each branch, the largest first.
        stride: stride of every branch.
        groups: convolution groups.
        se_ratio: hidden channels of squeeze-and-excitation as a fraction of `out_chs`; 0 leaves it out.
    """

    def __init__(
        self,
        in_chs: int,
        out_chs: int,
        kernels: Sequence[int],
        stride: int = 1,
        groups: int = 1,
        se_ratio: float = 0.0,
    ) -> None:
        super().__init__()
        self.conv = RepConv(in_chs, out_chs, kernels, stride, groups)
        self.se = SqueezeExcite(out_chs, se_ratio) if se_ratio else nn.Identity()
        self.act = nn.GELU()

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.se(self.conv(x)))


class Stem(nn.Sequential):
    """Stem of three MobileOne blocks: images (B, in_chs, H, W) -> (B, channels, H / 4, W / 4), sides rounded up.

    Args:
        in_chs: channels of the images.
        channels: channels of the output.
        scale_branch: whether the 3x3 blocks have a 1x1 branch.
    """

    def __init__(self, in_chs: int, channels: int, scale_branch: bool) -> None:
        kernels = (3, 1) if scale_branch else (3,)
        super().__init__(
            MobileOne(in_chs, channels, kernels, stride=2),
            MobileOne(channels, channels, kernels, stride=2, groups=channels),
            MobileOne(channels, channels, (1,)),
        )


class PatchEmbedding(nn.Module):
    """Patch embedding between two stages: large-kernel depthwise convolution of stride 2, then a 1x1 MobileOne block.

    The released FastViT models have no activation between the two; MobileCLIP's have one, and SE in some stages.

    Args:
        in_chs: input channels.
        out_chs: output channels.
        kernels: kernel sizes of the branches of the depthwise convolution, the largest first.
        se: whether squeeze-and-excitation follows the depthwise convolution.
        act: whether GELU follows the depthwise convolution.
    """

    def __init__(self, in_chs: int, out_chs: int, kernels: Sequence[int], se: bool, act: bool) -> None:
        super().__init__()
        self.large = RepConv(in_chs, out_chs, kernels, stride=2, groups=in_chs)
        self.se = SqueezeExcite(out_chs, 0.25) if se else nn.Identity()
        self.act = nn.GELU() if act else nn.Identity()
        self.point = MobileOne(out_chs, out_chs, (1,))

    def forward(self, x: Tensor) -> Tensor:
        return self.point(self.act(self.se(self.large(x))))


class ConvFFN(nn.Module):
    """Convolutional feed-forward network: depthwise convolution with norm, 1x1, exact GELU, 1x1 (paper, section 3.2.3).

    Args:
        channels: channels of input and output.
        ratio: hidden channels as a multiple of `channels`.
        kernel: kernel size of the depthwise convolution.
    """

    def __init__(self, channels: int, ratio: float, kernel: int = 7) -> None:
        super().__init__()
        hidden = int(channels * ratio)
        spatial = ConvNorm(channels, channels, kernel, groups=channels)
        self.conv: nn.Module = spatial
        self.fc1 = nn.Conv2d(channels, hidden, 1)
        self.act = nn.GELU()
        self.fc2 = nn.Conv2d(hidden, channels, 1)
        for conv in (spatial.conv, self.fc1, self.fc2):
            nn.init.trunc_normal_(conv.weight, std=0.02)
            if conv.bias is not None:
                nn.init.zeros_(conv.bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(self.act(self.fc1(self.conv(x))))


class SkipBlock(nn.Module):
    """Block of a token mixer with its own skip connection, then a ConvFFN with a scaled skip connection."""

    def __init__(self, stage: Stage, config: FastViTConfig, drop_path: float) -> None:
        super().__init__()
        self.token_mixer = find_mixer(stage.mixer).make(stage, config)
        self.ffn = ConvFFN(stage.width, stage.mlp_ratio, config.ffn_kernel)
        self.layer_scale: nn.Module = LayerScale(stage.width, config.layer_scale_init)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        x = self.token_mixer(x)
        return x + self.drop_path(self.layer_scale(self.ffn(x)))


NORMS: dict[str, Callable[[int], nn.Module]] = {"batch": nn.BatchNorm2d, "layer": LayerNorm2d}


class ResidualBlock(nn.Module):
    """Block of a norm and a token mixer, then a ConvFFN, each with a scaled skip connection."""

    def __init__(self, stage: Stage, config: FastViTConfig, drop_path: float) -> None:
        super().__init__()
        self.norm = NORMS[stage.norm](stage.width)
        self.token_mixer = find_mixer(stage.mixer).make(stage, config)
        self.layer_scale_1: nn.Module = LayerScale(stage.width, config.layer_scale_init)
        self.ffn = ConvFFN(stage.width, stage.mlp_ratio, config.ffn_kernel)
        self.layer_scale_2: nn.Module = LayerScale(stage.width, config.layer_scale_init)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.drop_path(self.layer_scale_1(self.token_mixer(self.norm(x))))
        return x + self.drop_path(self.layer_scale_2(self.ffn(x)))


def make_block(stage: Stage, config: FastViTConfig, drop_path: float) -> nn.Module:
    """Return a block of the kind that the token mixer of the stage needs.

    Args:
        stage: configuration of the stage.
        config: configuration of the network.
        drop_path: stochastic depth rate of the block.
    """
    kind = ResidualBlock if find_mixer(stage.mixer).residual else SkipBlock
    return kind(stage, config, drop_path)
