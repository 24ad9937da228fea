"""ConvFFN step after its depthwise convolution: 1x1 up, GELU, 1x1 down, residual."""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor, nn

from fastvit.kernels.inference.feed_forward_cuda import Layout, Weights, feed_forward, layouts, pack
from fastvit.kernels.inference.pointwise import Pointwise
from fastvit.kernels.inference.step import Choice, Cost, Step

# Blocks of the fused kernel, by the most channels that fit in the registers: rows of a program and hidden channels at a
# time, warps, pipeline stages. Wider maps would read their weights from the L2 cache more often than two products read
# the hidden map.
_BLOCKS = {
    96: ((64, 64, 4, 2), (128, 64, 4, 3), (128, 64, 8, 2), (64, 32, 4, 3)),
    192: ((128, 32, 8, 3), (64, 64, 4, 3), (128, 64, 8, 2)),
    256: ((128, 64, 8, 2), (128, 32, 8, 2)),
}
_NAMES = "BLOCK_M", "BLOCK_N", "num_warps", "num_stages"
# Rows below which small programs fill more of the GPU, and their shape.
_FEW = 16384
_SMALL = ((32, 64, 4, 3), (16, 64, 4, 3))
# Number of layouts of the Hopper kernel that are tried.
_LAYOUTS = 4
# Prefixes of the options of two launches.
_PREFIXES = "up_", "down_"


class FeedForward(Step):
    """Feed-forward network with residual, residual + down(GELU(up(x))): (B, H, W, C) -> (B, H, W, C).

    The kernels "torch" and "two" (two launches of the 1x1 kernel) write the hidden map to memory and read it again;
    "triton" and "hopper" keep it on the chip.

    Args:
        up: 1x1 convolution to the hidden channels.
        down: 1x1 convolution back to C channels.
    """

    def __init__(self, up: nn.Conv2d, down: nn.Conv2d) -> None:
        self.up, self.down = Pointwise(up, act=True), Pointwise(down, joins=True)
        self.channels, self.hidden = self.up.channels, self.up.out_channels
        self._packed: dict[int, Weights] = {}
        self._bias = down.bias if down.bias is None else down.bias.detach().float()

    @property
    def name(self) -> str:
        return f"FFN {self.channels}-{self.hidden}-{self.channels} +"

    def torch(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        return self.down.torch(self.up.torch(x), residual)

    def cost(self, x: Tensor) -> Cost:
        weights = self.up.weight.numel() + self.down.weight.numel()
        return Cost(x.element_size() * (3 * x.numel() + weights), x.numel() // self.channels * weights)

    def choices(self, x: Tensor, kernels: Iterable[str]) -> list[Choice]:
        if "triton" not in kernels or self.up.bias is None or self.down.bias is None:
            return []
        few = x.numel() // self.channels < _FEW
        fitting = next((blocks for widest, blocks in _BLOCKS.items() if sum(split(self.channels)) <= widest), ())
        fused = [
            Choice.of("triton", **dict(zip(_NAMES, block, strict=True)))
            for block in ((*_SMALL, *fitting[:1]) if few else fitting)
            if block[1] <= 2 * self.hidden and fitting
        ]
        hidden = x.new_empty(*x.shape[:-1], self.hidden, device="meta")
        up, down = self.up.choices(x, kernels), self.down.choices(hidden, kernels)
        two = [_two(first, second) for first in up[:2] for second in (down if few else down[:2])]
        if few:
            # With many programs, the sum over the hidden channels takes the longest if there are many channels.
            return fused + two if self.channels <= min(_BLOCKS) else two + fused
        on_hopper = layouts(self.channels, self.hidden)[:_LAYOUTS] if "hopper" in kernels else []
        return [*(Choice("hopper", layout.options) for layout in on_hopper), *fused, *two]

    def launch(self, x: Tensor, residual: Tensor | None, choice: Choice) -> Tensor:
        if choice.kernel == "two":
            up, down = (_part(choice, prefix) for prefix in _PREFIXES)
            return self.down.launch(self.up.launch(x, None, up), residual, down)
        if choice.kernel == "hopper":
            assert residual is not None
            return self._on_hopper(Layout(self.channels, self.hidden, **choice.options), x, residual)
        from fastvit.kernels.inference.device.feed_forward import feed_forward as kernel

        y, blocks = x.new_empty(x.shape), choice.options
        rows = x.numel() // self.channels
        first, second = split(self.channels)
        kernel[(-(-rows // blocks["BLOCK_M"]),)](
            x,
            self.up.weight,
            self.up.bias,
            self.down.weight,
            self.down.bias,
            residual,
            y,
            rows,
            CHANNELS=self.channels,
            HIDDEN=self.hidden,
            FIRST=first,
            SECOND=second,
            **blocks,
        )
        return y

    def _on_hopper(self, layout: Layout, x: Tensor, residual: Tensor) -> Tensor:
        assert self.up.bias is not None
        assert self._bias is not None
        if layout.block not in self._packed:
            self._packed[layout.block] = pack(layout, self.up.weight, self.up.bias, self.down.weight)
        return feed_forward(layout, x, self._packed[layout.block], self._bias, residual)


def _two(up: Choice, down: Choice) -> Choice:
    """Return two launches as one choice."""
    parts = zip(_PREFIXES, (up, down), strict=True)
    return Choice("two", tuple((prefix + name, value) for prefix, part in parts for name, value in part.config))


def _part(choice: Choice, prefix: str) -> Choice:
    """Return one of the two launches of a choice."""
    config = ((name.removeprefix(prefix), value) for name, value in choice.config if name.startswith(prefix))
    return Choice("triton", tuple(config))


def split(channels: int) -> tuple[int, int]:
    """Split a width into two powers of two of at least 16 whose sum is at least the width, with little padding.

    The second is smaller than the first, or 0.
    """
    first = max(1 << channels.bit_length() - 1, 16)
    rest = channels - first
    if rest <= 0:
        return first, 0
    second = max(1 << (rest - 1).bit_length(), 16)
    return (2 * first, 0) if second >= first else (first, second)
