"""Layers: convolution with norm, its over-parameterized form, squeeze-and-excitation, layer scale, drop path."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def conv2d(in_chs: int, out_chs: int, kernel: int, stride: int = 1, groups: int = 1, bias: bool = False) -> nn.Conv2d:
    """Return a convolution with padding kernel // 2, so that output sides are ceil(side / stride) for odd kernels.

    Args:
        in_chs: input channels.
        out_chs: output channels.
        kernel: kernel size.
        stride: vertical and horizontal stride.
        groups: convolution groups.
        bias: whether it has a bias.
    """
    kind = StridedPointwise if kernel == 1 and stride > 1 and groups == 1 else nn.Conv2d
    return kind(in_chs, out_chs, kernel, stride, kernel // 2, groups=groups, bias=bias)


class StridedPointwise(nn.Conv2d):
    """Strided 1x1 convolution, computed with stride 1 on every `stride`-th pixel, which gives the same result.

    oneDNN's weight gradient of a strided 1x1 convolution writes past its memory when the input is channels last and has
    fewer than 16 channels, or 8 on CPUs without AVX-512 (uxlfoundation/oneDNN#6035, torch 2.14.1). The stem has 3.
    """

    def forward(self, x: Tensor) -> Tensor:
        # Pooling windows of one pixel select the same pixels as a slice, but torch.export can infer that the resulting
        # sides equal those of other strided convolutions.
        return F.conv2d(F.avg_pool2d(x, 1, self.stride), self.weight, self.bias)


def upsampled(x: Tensor, like: Tensor) -> Tensor:
    """Return a map resized bilinearly to the height and width of `like`: (B, C, h, w) -> (B, C, H, W)."""
    return F.interpolate(x, like.shape[-2:], mode="bilinear", align_corners=False)


class ConvNorm(nn.Module):
    """Convolution without bias, then batch norm: (B, in_chs, H, W) -> (B, out_chs, H / stride, W / stride)."""

    def __init__(self, in_chs: int, out_chs: int, kernel: int, stride: int = 1, groups: int = 1) -> None:
        super().__init__()
        self.conv = conv2d(in_chs, out_chs, kernel, stride, groups)
        self.norm = nn.BatchNorm2d(out_chs)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(x))


class RepConv(nn.Module):
    """Parallel convolutions with norms and, if shapes allow, a normalized identity; one convolution when fused.

    This is the train-time over-parameterization of the paper (section 3.2.2). MobileOne's k x k and 1 x 1 branches are
    kernels (k, 1); the patch embedding's large and small kernels are (7, 3).

    Args:
        in_chs: input channels.
        out_chs: output channels.
        kernels: kernel size of each branch, the largest first.
        stride: stride of every branch; the identity branch needs stride 1 and in_chs equal to out_chs.
        groups: convolution groups; `in_chs` groups make a depthwise convolution.
    """

    def __init__(self, in_chs: int, out_chs: int, kernels: Sequence[int], stride: int = 1, groups: int = 1) -> None:
        super().__init__()
        self.branches = nn.ModuleList(ConvNorm(in_chs, out_chs, k, stride, groups) for k in kernels)
        self.identity = nn.BatchNorm2d(in_chs) if in_chs == out_chs and stride == 1 else None

    def forward(self, x: Tensor) -> Tensor:
        out = sum(branch(x) for branch in self.branches)
        return out if self.identity is None else out + self.identity(x)


def leave_one_branch(module: nn.Module) -> None:
    """Keep only the largest convolution and its norm in every RepConv, in place: no over-parameterization is left."""
    for part in module.modules():
        if isinstance(part, RepConv):
            part.branches = part.branches[:1]
            part.identity = None


class SqueezeExcite(nn.Module):
    """Squeeze-and-excitation, channel attention from the spatial mean: (B, C, H, W) -> (B, C, H, W).

    A mean instead of adaptive pooling keeps dynamic shapes exportable.

    Args:
        channels: channels of the map.
        ratio: hidden channels as a fraction of `channels`.
    """

    def __init__(self, channels: int, ratio: float) -> None:
        super().__init__()
        hidden = int(channels * ratio)
        self.reduce = nn.Conv2d(channels, hidden, 1)
        self.expand = nn.Conv2d(hidden, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        gate = self.expand(F.relu(self.reduce(x.mean((2, 3), keepdim=True))))
        return x * gate.sigmoid()


class LayerScale(nn.Module):
    """Learned factor per channel, of shape (C, 1, 1) as in the released weights."""

    def __init__(self, channels: int, init: float) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.full((channels, 1, 1), init))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gamma


class LayerNorm2d(nn.LayerNorm):
    """Layer norm over the channels of a (B, C, H, W) map."""

    def __init__(self, channels: int, elementwise_affine: bool = True) -> None:
        super().__init__(channels, eps=1e-5, elementwise_affine=elementwise_affine)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class DropPath(nn.Module):
    """Stochastic depth: in training, zero the branch of a sample with probability `rate` and scale up the others."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.rate == 0.0:
            return x
        keep = 1.0 - self.rate
        mask = x.new_empty((x.shape[0], 1, 1, 1)).bernoulli_(keep)
        return x * mask / keep

    def extra_repr(self) -> str:
        return f"rate={self.rate:.3f}"
