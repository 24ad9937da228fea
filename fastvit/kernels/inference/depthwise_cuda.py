"""The depthwise kernel of depthwise.cu: its text for a shape, and its launch."""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

from fastvit.kernels.inference.cuda_text import TYPES, kernel_text
from fastvit.kernels.inference.nvrtc import INT32, INT64, POINTER, Kernel

THREADS = 128
# Outputs across that a thread computes, and blocks that are to fit a multiprocessor, which bounds the registers: by
# kernel size and stride, the likeliest first. Each compiles without spills for sm_80 and sm_90.
STRIPS = {
    (7, 1): ((8, 2), (6, 3), (4, 4), (7, 2)),
    (7, 2): ((8, 3), (4, 4)),
    (3, 1): ((8, 4), (4, 6)),
    (3, 2): ((8, 4), (4, 5)),
}
# Outputs that a strip may have beyond the map, as a share of it, where another strip has fewer.
_WASTE = 0.05
_SIGNATURE = (POINTER, POINTER, POINTER, POINTER, INT64, INT32, INT32, INT32, INT32, INT32)


def strips(kernel: int, stride: int, out_width: int) -> list[tuple[int, int]]:
    """Those of STRIPS that fit a map of a width; none where there is no kernel."""
    known = STRIPS.get((kernel, stride), ())
    fitting = [(strip, blocks) for strip, blocks in known if -out_width % strip <= _WASTE * out_width]
    return fitting or [(strip, blocks) for strip, blocks in known if strip < 2 * out_width] or list(known[-1:])


@cache
def source(
    dtype: torch.dtype, kernel: int, stride: int, multiplier: int, channels: int, act: bool, strip: int, blocks: int
) -> str:
    """CUDA C++ with an entry `depthwise`.

    Args:
        dtype: float16 or bfloat16, of the maps.
        kernel: taps a side, odd.
        stride: 1 or 2.
        multiplier: 1, or 2 output channels of each input channel.
        channels: of the input.
        act: GELU at the end.
        strip: outputs across that a thread computes.
        blocks: that are to fit a multiprocessor.
    """
    numbers = "items, height, width, out_height, out_width, rows"
    shape = f"{kernel}, {stride}, {multiplier}, {channels}, {strip}, {THREADS}, {str(act).lower()}"
    return kernel_text("depthwise", {}) + (
        f'\nextern "C" __global__ void __launch_bounds__({THREADS}, {blocks}) depthwise('
        "const void* x, const float2* weight, const float2* bias, unsigned* y, long long items, int height, int width, "
        "int out_height, int out_width, int rows) {\n"
        f"    walk<{TYPES[dtype][0]}, {shape}>(x, weight, bias, y, {numbers});\n"
        "}\n"
    )


def shared_bytes(kernel: int, out_channels: int) -> int:
    """Shared memory of a block: a float2 a tap, and channel pair or thread."""
    return kernel * kernel * min(out_channels // 2, THREADS) * 8


def grid(batch: int, out_height: int, out_width: int, out_channels: int, strip: int, rows: int) -> tuple[int, int, int]:
    """Threads that have work in a row of blocks, blocks across, and chunks of rows."""
    items = batch * -(-out_width // strip) * (out_channels // 2)
    return items, -(-items // THREADS), -(-out_height // rows)


@cache
def _kernel(text: str, device: int, shared: int) -> Kernel:
    return Kernel(text, "depthwise", device, shared)


def depthwise(
    x: Tensor, weight: Tensor, bias: Tensor, kernel: int, stride: int, act: bool, strip: int, blocks: int, rows: int
) -> Tensor:
    """Convolve a map on a GPU.

    Args:
        x: (B, H, W, C), contiguous, float16 or bfloat16, C even.
        weight: (kernel * kernel, C or 2 C), float32.
        bias: (C or 2 C,), float32.
        kernel, stride, act, strip, blocks: as in `source`.
        rows: of the output that a thread walks down.
    """
    batch, height, width, channels = x.shape
    out_height, out_width, out_channels = -(-height // stride), -(-width // stride), len(bias)
    text = source(x.dtype, kernel, stride, out_channels // channels, channels, act, strip, blocks)
    run = _kernel(text, x.device.index or 0, shared_bytes(kernel, out_channels))
    y = x.new_empty(batch, out_height, out_width, out_channels)
    items, across, down = grid(batch, out_height, out_width, out_channels, strip, rows)
    addresses = x.data_ptr(), weight.data_ptr(), bias.data_ptr(), y.data_ptr()
    run((across, down), THREADS, (*addresses, items, height, width, out_height, out_width, rows), _SIGNATURE)
    return y
