"""The smallest pieces: convolution with norm, its over-parameterized form, squeeze-and-excitation, layer scale."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def conv2d(in_chs: int, out_chs: int, kernel: int, stride: int = 1, groups: int = 1, bias: bool = False) -> nn.Conv2d:
    """A convolution padded by kernel // 2: the output has ceil(side / stride) pixels a side for odd kernels."""
    kind = StridedPointwise if kernel == 1 and stride > 1 and groups == 1 else nn.Conv2d
    return kind(in_chs, out_chs, kernel, stride, kernel // 2, groups=groups, bias=bias)


class StridedPointwise(nn.Conv2d):
    """A strided 1x1 convolution, computed as one of stride 1 on every `stride`-th pixel: the same function.

    oneDNN's weight gradient of a strided 1x1 convolution writes past its memory when the input is channels last and has
    fewer than 16 channels, 8 on CPUs without AVX-512 (uxlfoundation/oneDNN#6035, torch 2.14.1). The stem has 3.
    """

    def forward(self, x: Tensor) -> Tensor:
        # Windows of one pixel pick what a slice would; torch.export knows that they fit what other convolutions make.
        return F.conv2d(F.avg_pool2d(x, 1, self.stride), self.weight, self.bias)


def upsampled(x: Tensor, like: Tensor) -> Tensor:
    """(B, C, h, w) -> (B, C, H, W), bilinear, with the height and width of `like`."""
    return F.interpolate(x, like.shape[-2:], mode="bilinear", align_corners=False)


class ConvNorm(nn.Module):
    """Convolution without bias, then batch norm: (B, C, H, W) -> (B, out_chs, H / stride, W / stride)."""

    def __init__(self, in_chs: int, out_chs: int, kernel: int, stride: int = 1, groups: int = 1) -> None:
        super().__init__()
        self.conv = conv2d(in_chs, out_chs, kernel, stride, groups)
        self.norm = nn.BatchNorm2d(out_chs)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(x))


class RepConv(nn.Module):
    """Parallel convolutions with norms and, where shapes allow, a normalized identity; linear, one conv when fused.

    The train-time over-parameterization of the paper (section 3.2.2): MobileOne's k x k and 1 x 1 branches are kernels
    (k, 1), the patch embedding's large kernel with its small companion is (7, 3).

    Args:
        in_chs: input channels.
        out_chs: output channels.
        kernels: kernel size of each branch, the largest first.
        stride: of every branch; the identity branch exists where it is 1 and in_chs equals out_chs.
        groups: convolution groups; in_chs makes it depthwise.
    """

    def __init__(self, in_chs: int, out_chs: int, kernels: Sequence[int], stride: int = 1, groups: int = 1) -> None:
        super().__init__()
        self.branches = nn.ModuleList(ConvNorm(in_chs, out_chs, k, stride, groups) for k in kernels)
        self.identity = nn.BatchNorm2d(in_chs) if in_chs == out_chs and stride == 1 else None

    def forward(self, x: Tensor) -> Tensor:
        out = sum(branch(x) for branch in self.branches)
        return out if self.identity is None else out + self.identity(x)


def leave_one_branch(module: nn.Module) -> None:
    """Leave the largest convolution with its norm of every RepConv, in place: nothing is over-parameterized then."""
    for part in module.modules():
        if isinstance(part, RepConv):
            part.branches = part.branches[:1]
            part.identity = None


class SqueezeExcite(nn.Module):
    """Channel attention from the spatial mean: (B, C, H, W) -> (B, C, H, W). A mean keeps dynamic shapes exportable."""

    def __init__(self, channels: int, ratio: float) -> None:
        super().__init__()
        hidden = int(channels * ratio)
        self.reduce = nn.Conv2d(channels, hidden, 1)
        self.expand = nn.Conv2d(hidden, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        gate = self.expand(F.relu(self.reduce(x.mean((2, 3), keepdim=True))))
        return x * gate.sigmoid()


class LayerScale(nn.Module):
    """A learned factor a channel, of shape (C, 1, 1) as in the released weights."""

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
    """Stochastic depth: in training, zero the branch of a sample with probability `rate`, scale up the others."""

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
