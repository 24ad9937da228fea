"""The first convolution of the stem, which reads the images."""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor, nn
from torch.nn import functional as F

from fastvit.kernels.inference.step import Choice, Cost, Step, nchw, nhwc

_BLOCKS = ((128, 64, 4), (256, 64, 8), (128, 32, 4), (128, 16, 4), (64, 128, 4))


class StemConvolution(Step):
    """(B, H, W, C) images, of any strides -> (B, H / stride, W / stride, N), rounded up, with bias and GELU.

    Args:
        conv: dense, square and odd, padded by half its size.
    """

    def __init__(self, conv: nn.Conv2d) -> None:
        self.conv = conv
        self.kernel, self.stride = conv.kernel_size[0], conv.stride[0]
        self.channels, self.out_channels = conv.in_channels, conv.out_channels
        taps = self.channels * self.kernel**2
        self.taps = max(1 << (taps - 1).bit_length(), 16)
        weight, bias = conv.weight.detach(), conv.bias
        # (taps, out) with zero rows below, so that the matrix units get a power of two.
        self.weight = F.pad(weight.flatten(1).t(), (0, 0, 0, self.taps - taps)).contiguous()
        self.bias = weight.new_zeros(self.out_channels) if bias is None else bias.detach()

    @property
    def name(self) -> str:
        return f"convolution {self.kernel}x{self.kernel}/{self.stride} {self.channels}-{self.out_channels} GELU"

    def torch(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        return nhwc(F.gelu(self.conv(nchw(x))))

    def cost(self, x: Tensor) -> Cost:
        pixels = x.shape[0] * -(-x.shape[1] // self.stride) * -(-x.shape[2] // self.stride)
        moved = x.numel() + pixels * self.out_channels + self.conv.weight.numel()
        return Cost(x.element_size() * moved, pixels * self.conv.weight.numel())

    def choices(self, x: Tensor, kernels: Iterable[str]) -> list[Choice]:
        names = "BLOCK_M", "BLOCK_N", "num_warps"
        return [
            Choice.of("triton", **dict(zip(names, block, strict=True)))
            for block in _BLOCKS
            if "triton" in kernels and block[1] <= 2 * self.out_channels and self.taps <= 128
        ]

    def launch(self, x: Tensor, residual: Tensor | None, choice: Choice) -> Tensor:
        from fastvit.kernels.inference.device.stem import stem

        batch, height, width, _ = x.shape
        out_height, out_width = -(-height // self.stride), -(-width // self.stride)
        y = x.new_empty(batch, out_height, out_width, self.out_channels)
        pixels, blocks = batch * out_height * out_width, choice.options
        row, column, channel = x.stride(1), x.stride(2), x.stride(3)
        stem[(-(-pixels // blocks["BLOCK_M"]) * -(-self.out_channels // blocks["BLOCK_N"]),)](
            x,
            self.weight,
            self.bias,
            y,
            pixels,
            height,
            width,
            out_height,
            out_width,
            x.stride(0),
            channel,
            row,
            column,
            IN=self.channels,
            OUT=self.out_channels,
            KERNEL=self.kernel,
            STRIDE=self.stride,
            TAPS=self.taps,
            **blocks,
        )
        return y
