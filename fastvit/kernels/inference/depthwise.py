"""Depthwise convolution step: RepMixer, large kernels of ConvFFN and patch embedding, positional encoding."""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor, nn
from torch.nn import functional as F

from fastvit.kernels.inference.step import Choice, Cost, Step, nchw, nhwc

# Output rows of a thread of the CUDA kernel, and the number of threads that fill a GPU. With fewer rows, more of the
# input is read twice; with more rows, a small batch has too few threads.
_ROWS = (64, 32, 16, 8, 4, 2)
_ENOUGH = 32768
# Elements of a map below which the Triton kernel may be faster.
_SMALL = 1 << 20


class Depthwise(Step):
    """Depthwise convolution with bias, then optionally GELU.

    It maps (B, H, W, C) to (B, H / stride, W / stride, C or 2 C); sides are rounded up.

    Args:
        conv: depthwise convolution with a square kernel of odd size, padding of half the size, and stride 1 or 2.
        act: whether GELU follows.
    """

    def __init__(self, conv: nn.Conv2d, act: bool = False) -> None:
        self.conv, self.act = conv, act
        self.kernel, self.stride = conv.kernel_size[0], conv.stride[0]
        self.channels, self.out_channels = conv.in_channels, conv.out_channels
        weight, bias = conv.weight.detach().float(), conv.bias
        self.weight = weight.flatten(1).t().contiguous()
        self.bias = weight.new_zeros(self.out_channels) if bias is None else bias.detach().float()

    @property
    def name(self) -> str:
        shape = f"{self.channels}" if self.channels == self.out_channels else f"{self.channels}-{self.out_channels}"
        return f"depthwise {self.kernel}x{self.kernel}/{self.stride} {shape}{' GELU' if self.act else ''}"

    def torch(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        y = self.conv(nchw(x))
        return nhwc(F.gelu(y) if self.act else y)

    def out_size(self, x: Tensor) -> tuple[int, int]:
        """Return height and width of the output."""
        return -(-x.shape[1] // self.stride), -(-x.shape[2] // self.stride)

    def cost(self, x: Tensor) -> Cost:
        height, width = self.out_size(x)
        written = x.shape[0] * height * width * self.out_channels
        moved = x.numel() + written + self.conv.weight.numel()
        return Cost(x.element_size() * moved, fmas=self.kernel**2 * written)

    def choices(self, x: Tensor, kernels: Iterable[str]) -> list[Choice]:
        kernels = set(kernels)
        cuda, triton = [], []
        multiplier = self.out_channels / self.channels
        if "cuda" in kernels and (multiplier == 2 or (multiplier == 1 and self.channels % 2 == 0)):
            from fastvit.kernels.inference.depthwise_cuda import strips

            for strip, blocks in strips(self.kernel, self.stride, self.out_size(x)[1]):
                cuda += [Choice.of("cuda", strip=strip, blocks=blocks, rows=rows) for rows in self._rows(x, strip)]
        # Triton is faster than CUDA only if there are too few threads to hide that each waits for its rows.
        few = x.numel() <= _SMALL
        if "triton" in kernels and (not cuda or few):
            names = "BLOCK_H", "BLOCK_W", "BLOCK_C", "num_warps"
            tiles = ((2, 8, 32, 4), (2, 4, 32, 4)) if few else ((4, 8, 32, 4), (4, 4, 64, 4), (2, 8, 32, 4))
            triton = [Choice.of("triton", **dict(zip(names, tile, strict=True))) for tile in tiles]
        return triton + cuda if few and self.stride == 1 else cuda + triton

    def _rows(self, x: Tensor, strip: int) -> list[int]:
        """Return the numbers of rows of a chunk that are worth a trial, the largest first."""
        height, width = self.out_size(x)
        columns = x.shape[0] * -(-width // strip) * self.out_channels // 2
        # A chunk that is higher than the map covers all of it.
        sensible = [rows for rows in _ROWS if rows < 2 * height] or [_ROWS[-1]]
        return [rows for rows in sensible if columns * -(-height // rows) >= _ENOUGH][:3] or sensible[-2:]

    def launch(self, x: Tensor, residual: Tensor | None, choice: Choice) -> Tensor:
        if choice.kernel == "cuda":
            from fastvit.kernels.inference.depthwise_cuda import depthwise

            return depthwise(x, self.weight, self.bias, self.kernel, self.stride, self.act, **choice.options)
        from fastvit.kernels.inference.device.depthwise import depthwise as kernel

        batch, height, width, _ = x.shape
        out_height, out_width = self.out_size(x)
        y = x.new_empty(batch, out_height, out_width, self.out_channels)
        blocks = choice.options
        tiles = -(-out_height // blocks["BLOCK_H"]) * -(-out_width // blocks["BLOCK_W"])
        kernel[(batch * tiles * -(-self.out_channels // blocks["BLOCK_C"]),)](
            x,
            self.weight,
            self.bias,
            y,
            height,
            width,
            out_height,
            out_width,
            CHANNELS=self.out_channels,
            MULTIPLIER=self.out_channels // self.channels,
            KERNEL=self.kernel,
            STRIDE=self.stride,
            ACT=self.act,
            **blocks,
        )
        return y
