"""Last step of a classifier before its head: squeeze-and-excitation, GELU, mean over the pixels."""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor, nn
from torch.nn import functional as F

from fastvit.kernels.inference.step import Choice, Cost, Step, nchw
from fastvit.model.layers import SqueezeExcite

# Elements of a matrix that a program has at a time, and its warps; the likeliest first.
_BLOCKS = ((16384, 8), (32768, 16), (8192, 4))
# Most channels, rounded up to a power of two, that fit in a program.
_WIDEST = 8192


class GatedPool(Step):
    """Gated pooling, mean(GELU(squeeze_excite(x))): (B, H, W, C) -> (B, C)."""

    def __init__(self, gate: SqueezeExcite) -> None:
        self.gate = gate
        self.hidden, self.channels = gate.reduce.out_channels, gate.reduce.in_channels
        self.reduce = gate.reduce.weight.detach().flatten(1).contiguous()
        self.expand = gate.expand.weight.detach().flatten(1).t().contiguous()

    @property
    def name(self) -> str:
        return f"SE, GELU, mean {self.channels}"

    def torch(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        return F.gelu(self.gate(nchw(x))).mean((2, 3))

    def cost(self, x: Tensor) -> Cost:
        weights = self.reduce.numel() + self.expand.numel()
        return Cost(x.element_size() * (x.numel() + x.shape[0] * self.channels + weights))

    def choices(self, x: Tensor, kernels: Iterable[str]) -> list[Choice]:
        width = 1 << (self.channels - 1).bit_length()
        if "triton" not in kernels or width > _WIDEST:
            return []
        pixels, hidden = (1 << (n - 1).bit_length() for n in (x.shape[1] * x.shape[2], self.hidden))
        return [
            Choice.of("triton", BLOCK_P=min(held // width, pixels), BLOCK_H=min(held // width, hidden), num_warps=warps)
            for held, warps in _BLOCKS
        ]

    def launch(self, x: Tensor, residual: Tensor | None, choice: Choice) -> Tensor:
        from fastvit.kernels.inference.device.gated_pool import gated_pool

        y = x.new_empty(x.shape[0], self.channels)
        gated_pool[(x.shape[0],)](
            x,
            self.reduce,
            bias_of(self.gate.reduce),
            self.expand,
            bias_of(self.gate.expand),
            y,
            PIXELS=x.shape[1] * x.shape[2],
            CHANNELS=self.channels,
            HIDDEN=self.hidden,
            WIDTH=1 << (self.channels - 1).bit_length(),
            **choice.options,
        )
        return y


def bias_of(conv: nn.Conv2d) -> Tensor:
    """Return the bias of a convolution that has one."""
    assert conv.bias is not None
    return conv.bias.detach()
