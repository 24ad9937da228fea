"""Self-attention step of the last stage, without its two linear layers."""

from __future__ import annotations

import math
from collections.abc import Iterable

from torch import Tensor
from torch.nn import functional as F

from fastvit.kernels.inference.step import Choice, Cost, Step

# Most pixels of an image whose logits fit in a program; the last stage of a 256 px image has 64.
_PIXELS = 128


class Attention(Step):
    """Self-attention: queries, keys and values (B, H, W, 3 C) -> (B, H, W, C).

    Args:
        channels: number of channels C.
        head_dim: channels of a head.
    """

    def __init__(self, channels: int, head_dim: int) -> None:
        self.channels, self.head_dim = channels, head_dim

    @property
    def name(self) -> str:
        return f"attention {self.channels}/{self.head_dim}"

    def torch(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        batch, height, width, _ = x.shape
        qkv = x.view(batch, height * width, 3, self.channels // self.head_dim, self.head_dim)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        mixed = F.scaled_dot_product_attention(q, k, v).transpose(1, 2)
        return mixed.reshape(batch, height, width, self.channels)

    def cost(self, x: Tensor) -> Cost:
        pixels = x.shape[1] * x.shape[2]
        return Cost(x.element_size() * (x.numel() + x.numel() // 3), 2 * x.shape[0] * pixels * pixels * self.channels)

    def choices(self, x: Tensor, kernels: Iterable[str]) -> list[Choice]:
        width = self.head_dim
        fits = 16 <= width <= 128 and width & (width - 1) == 0 and x.shape[1] * x.shape[2] <= _PIXELS
        several = (4, 2) if x.shape[1] * x.shape[2] <= 64 else (8, 4)
        return [Choice.of("triton", num_warps=warps) for warps in several if "triton" in kernels and fits]

    def launch(self, x: Tensor, residual: Tensor | None, choice: Choice) -> Tensor:
        from fastvit.kernels.inference.device.attention import attention

        pixels = x.shape[1] * x.shape[2]
        if pixels > _PIXELS:  # a choice is used for all shapes that are rounded to the same one
            return self.torch(x)
        y = x.new_empty(*x.shape[:-1], self.channels)
        attention[(x.shape[0] * (self.channels // self.head_dim),)](
            x,
            y,
            SCALE=math.log2(math.e) / math.sqrt(self.head_dim),
            PIXELS=pixels,
            CHANNELS=self.channels,
            HEAD=self.head_dim,
            BLOCK=max(1 << (pixels - 1).bit_length(), 16),
            **choice.options,
        )
        return y
