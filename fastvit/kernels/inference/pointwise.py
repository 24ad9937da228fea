"""1x1 convolutions and linear layers over the channels."""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor, nn
from torch.nn import functional as F

from fastvit.kernels.inference.step import Choice, Cost, Step

# Rows and columns of a program, size of a block of the sum, warps, pipeline stages; the likeliest first.
_BLOCKS = ((128, 128, 64, 8, 3), (128, 64, 64, 4, 3), (128, 256, 64, 8, 3), (64, 64, 64, 4, 4), (128, 32, 32, 4, 4))
_NAMES = "BLOCK_M", "BLOCK_N", "BLOCK_K", "num_warps", "num_stages"
# Shapes of small programs, which fill more of the GPU if there are few large ones: with up to _FEW tiles of 128x128
# outputs, small programs may be faster; below _TOO_FEW, large ones are not tried.
_FEW, _TOO_FEW = 512, 96
_SMALL = ((32, 64, 64, 4, 4), (64, 64, 64, 4, 4), (16, 64, 128, 4, 3), (32, 32, 128, 4, 3))


class Pointwise(Step):
    """1x1 convolution or linear layer with bias, then optionally GELU or a residual: (B, H, W, C) -> (B, H, W, N).

    Args:
        layer: 1x1 convolution or linear layer.
        act: whether GELU follows.
        joins: whether the residual is added.
    """

    def __init__(self, layer: nn.Conv2d | nn.Linear, act: bool = False, joins: bool = False) -> None:
        self.act, self.joins = act, joins
        self.weight = layer.weight.detach().flatten(1).contiguous()
        self.bias = None if layer.bias is None else layer.bias.detach()
        self.out_channels, self.channels = self.weight.shape

    @property
    def name(self) -> str:
        return f"1x1 {self.channels}-{self.out_channels}{' GELU' if self.act else ''}{' +' if self.joins else ''}"

    def torch(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        y = F.linear(x, self.weight, self.bias)
        y = F.gelu(y) if self.act else y
        return y if residual is None else residual + y

    def cost(self, x: Tensor) -> Cost:
        pixels = x.numel() // self.channels
        moved = x.numel() + pixels * self.out_channels * (1 + self.joins) + self.weight.numel()
        return Cost(x.element_size() * moved, pixels * self.weight.numel())

    def choices(self, x: Tensor, kernels: Iterable[str]) -> list[Choice]:
        if "triton" not in kernels or self.bias is None:
            return []
        large = x.numel() // self.channels * self.out_channels // 128**2
        blocks = _BLOCKS if large > _FEW else _SMALL if large < _TOO_FEW else (*_BLOCKS[:3], *_SMALL[:2])
        # Blocks that are mostly padding are not tried, unless all are.
        fitting = [b for b in blocks if b[1] <= 2 * self.out_channels and b[2] <= 2 * self.channels] or blocks[-1:]
        return [Choice.of("triton", **dict(zip(_NAMES, block, strict=True))) for block in fitting]

    def launch(self, x: Tensor, residual: Tensor | None, choice: Choice) -> Tensor:
        from fastvit.kernels.inference.device.pointwise import pointwise

        y = x.new_empty(*x.shape[:-1], self.out_channels)
        rows, blocks = x.numel() // self.channels, choice.options
        pointwise[(-(-rows // blocks["BLOCK_M"]) * -(-self.out_channels // blocks["BLOCK_N"]),)](
            x,
            self.weight,
            self.bias,
            y if residual is None else residual,
            y,
            rows,
            IN=self.channels,
            OUT=self.out_channels,
            ACT=self.act,
            RESIDUAL=residual is not None,
            **blocks,
        )
        return y
