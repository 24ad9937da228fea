"""Stem step: the three convolutions that read the images."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fastvit.kernels.inference.stem_cuda import Weights, blocks, pack, stem
from fastvit.kernels.inference.step import Choice, Cost, Step, nchw, nhwc

# Blocks of the Triton kernel: output columns of a program, output rows, warps; the likeliest first.
_LARGE = ((32, 8, 4), (64, 16, 4))
_SMALL = ((16, 1, 4), (16, 2, 4))
_NAMES = "BLOCK_M", "ROWS", "num_warps"
# Pixels of a batch below which small programs fill more of the GPU.
_FEW = 16 * 256 * 256


class Stem(Step):
    """Stem: three convolutions, each with GELU; (B, H, W, C) images of any strides -> (B, H / 4, W / 4, N), rounded up.

    Args:
        first: 3x3 convolution of stride 2.
        second: depthwise 3x3 convolution of stride 2.
        third: 1x1 convolution.
    """

    def __init__(self, first: nn.Conv2d, second: nn.Conv2d, third: nn.Conv2d) -> None:
        self.layers = first, second, third
        self.channels, self.out_channels = first.in_channels, third.out_channels
        # The first bias is an additional row, for a tap that is always 1.
        self._first = torch.cat([first.weight.detach().flatten(1).t(), _bias(first)[None]])
        self._second = second.weight.detach().float().flatten(1).t().contiguous()
        self._third = third.weight.detach().flatten(1).contiguous()
        self._second_bias, self._third_bias = _bias(second).float(), _bias(third)

    @property
    def name(self) -> str:
        return f"stem {self.channels}-{self.out_channels}"

    def torch(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        y = nchw(x)
        for layer in self.layers:
            y = F.gelu(layer(y))
        return nhwc(y)

    def cost(self, x: Tensor) -> Cost:
        batch, height, width, _ = x.shape
        half, quarter = (batch * -(-height // side) * -(-width // side) for side in (2, 4))
        first, second, third = (layer.weight.numel() for layer in self.layers)
        moved = x.numel() + quarter * self.out_channels + first + second + third
        return Cost(x.element_size() * moved, half * first + quarter * third, quarter * second)

    def choices(self, x: Tensor, kernels: Iterable[str]) -> list[Choice]:
        kernels = set(kernels)
        few = x.shape[0] * x.shape[1] * x.shape[2] < _FEW
        cuda = [
            Choice.of("cuda", columns=columns, warps=warps, blocks=fit)
            for columns, warps, fit in blocks(self.channels, self.out_channels)
            if "cuda" in kernels
        ]
        if "triton" not in kernels or self._taps > 64 or self.out_channels > 128:
            return cuda
        triton = [Choice.of("triton", **dict(zip(_NAMES, block, strict=True))) for block in (_SMALL if few else _LARGE)]
        # The Triton kernel rounds the channels up to a power of two.
        padded = self.out_channels & (self.out_channels - 1)
        return cuda + triton if padded and not few else triton + cuda

    def launch(self, x: Tensor, residual: Tensor | None, choice: Choice) -> Tensor:
        if choice.kernel == "cuda":
            return stem(x, self._packed, self.out_channels, **choice.options)
        from fastvit.kernels.inference.device.stem import stem as kernel

        batch, height, width, _ = x.shape
        out_height, out_width = -(-height // 4), -(-width // 4)
        y = x.new_empty(batch, out_height, out_width, self.out_channels)
        config = choice.options
        kernel[(-(-batch * out_width // config["BLOCK_M"]), -(-out_height // config["ROWS"]))](
            x,
            self._padded,
            self._second,
            self._second_bias,
            self._third,
            self._third_bias,
            y,
            batch * out_width,
            height,
            width,
            out_height,
            out_width,
            x.stride(0),
            x.stride(3),
            x.stride(1),
            x.stride(2),
            IN=self.channels,
            OUT=self.out_channels,
            TAPS=self._taps,
            WIDTH=max(1 << (self.out_channels - 1).bit_length(), 16),
            **config,
        )
        return y

    @property
    def _taps(self) -> int:
        """Rows of the weights of the first product, rounded up to a power of two."""
        return max(1 << (len(self._first) - 1).bit_length(), 16)

    @cached_property
    def _padded(self) -> Tensor:
        return F.pad(self._first, (0, 0, 0, self._taps - len(self._first)))

    @cached_property
    def _packed(self) -> Weights:
        return pack(self._first, self._second, self._second_bias, self._third, self._third_bias)


def _bias(layer: nn.Conv2d) -> Tensor:
    return layer.weight.new_zeros(layer.out_channels) if layer.bias is None else layer.bias.detach()
