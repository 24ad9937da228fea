"""Segmentation heads: feature maps of a backbone -> features at the stride of the finest map.

Batch norms are in ConvNorm, so that `fastvit.fuse` folds them. Maps are resized to the size of a finer map, not by a
factor of two, so that images of any size work.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torchvision.ops import FeaturePyramidNetwork

from fastvit.model.layers import ConvNorm, upsampled


class ConvNormReLU(nn.Sequential):
    """Convolution, batch norm and ReLU."""

    def __init__(self, in_chs: int, out_chs: int, kernel: int) -> None:
        super().__init__(ConvNorm(in_chs, out_chs, kernel), nn.ReLU(inplace=True))


class SemanticFPN(nn.Module):
    """The segmentation branch of panoptic feature pyramid networks (arXiv 1901.02446, figure 3), with batch norm.

    An FPN with a branch per level: 3x3 convolutions, each followed by upsampling by two, up to the finest stride. The
    outputs of the branches are summed.

    Args:
        channels: channels of the backbone's feature maps, the finest first.
        fpn_channels: channels of the FPN.
        head_channels: channels of the branches and of the output.
    """

    def __init__(self, channels: Sequence[int], fpn_channels: int, head_channels: int) -> None:
        super().__init__()
        self.out_channels = head_channels
        self.fpn = FeaturePyramidNetwork(list(channels), fpn_channels)
        self.branches = nn.ModuleList(
            nn.ModuleList(
                ConvNormReLU(fpn_channels if k == 0 else head_channels, head_channels, 3) for k in range(max(level, 1))
            )
            for level in range(len(channels))
        )

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        pyramid = list(self.fpn({str(i): x for i, x in enumerate(maps)}).values())
        total = None
        for level, (x, branch) in enumerate(zip(pyramid, self.branches, strict=True)):
            for finer, conv in enumerate(cast(nn.ModuleList, branch), start=1):
                x = conv(x)
                if level:
                    x = upsampled(x, pyramid[level - finer])
            total = x if total is None else total + x
        assert total is not None
        return total


class UPerNet(nn.Module):
    """UPerNet (arXiv 1807.10221): pyramid pooling on the last map, an FPN, and a fusion of all levels.

    There is no auxiliary classifier on the third map, which some implementations have.

    Args:
        channels: channels of the backbone's feature maps, the finest first.
        fpn_channels: channels of all layers.
    """

    scales = (1, 2, 3, 6)

    def __init__(self, channels: Sequence[int], fpn_channels: int) -> None:
        super().__init__()
        self.out_channels = fpn_channels
        *finer, last = channels
        self.pools = nn.ModuleList(
            nn.Sequential(nn.AdaptiveAvgPool2d(scale), ConvNormReLU(last, fpn_channels, 1)) for scale in self.scales
        )
        self.pooled = ConvNormReLU(last + len(self.scales) * fpn_channels, fpn_channels, 3)
        self.lateral = nn.ModuleList(ConvNormReLU(count, fpn_channels, 1) for count in finer)
        self.smooth = nn.ModuleList(ConvNormReLU(fpn_channels, fpn_channels, 3) for _ in finer)
        self.fused = ConvNormReLU(len(channels) * fpn_channels, fpn_channels, 3)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        last = maps[-1]
        context = torch.cat([last, *(upsampled(pool(last), last) for pool in self.pools)], 1)
        pyramid = [self.pooled(context)]
        for x, lateral in zip(reversed(maps[:-1]), reversed(self.lateral), strict=True):
            side = lateral(x)
            pyramid.insert(0, side + upsampled(pyramid[0], side))
        *finer, coarsest = pyramid
        smooth = [*(conv(x) for conv, x in zip(self.smooth, finer, strict=True)), coarsest]
        return self.fused(torch.cat([upsampled(x, smooth[0]) for x in smooth], 1))
