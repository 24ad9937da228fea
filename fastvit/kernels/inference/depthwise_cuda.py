"""Depthwise kernel of depthwise.cu: its source text for a shape, and its launch."""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

from fastvit.kernels.inference.cuda_text import TYPES, kernel_text
from fastvit.kernels.inference.nvrtc import INT32, INT64, POINTER, Kernel

THREADS = 128
# By kernel size and stride: output columns of a thread, and blocks that must fit on a multiprocessor, which bounds the
# registers; the likeliest first. Each compiles without spills for sm_80 and sm_90.
STRIPS = {
    (7, 1): ((8, 2), (6, 3), (4, 4), (7, 2)),
    (7, 2): ((8, 3), (4, 4)),
    (3, 1): ((8, 4), (4, 6)),
    (3, 2): ((8, 4), (4, 5)),
}
# Largest share of the output width that strips may add as padding, if another strip adds less.
_WASTE = 0.05
_SIGNATURE = (POINTER, POINTER, POINTER, POINTER, INT64, INT32, INT32, INT32, INT32, INT32)


def strips(kernel: int, stride: int, out_width: int) -> list[tuple[int, int]]:
    """Return the entries of STRIPS that fit the output width; an empty list if the kernel is not supported.

    Args:
        kernel: kernel size.
        stride: stride of the convolution.
        out_width: width of the output, in pixels.
    """
    known = STRIPS.get((kernel, stride), ())
    fitting = [(strip, blocks) for strip, blocks in known if -out_width % strip <= _WASTE * out_width]
    return fitting or [(strip, blocks) for strip, blocks in known if strip < 2 * out_width] or list(known[-1:])


@cache
def source(
    dtype: torch.dtype, kernel: int, stride: int, multiplier: int, channels: int, act: bool, strip: int, blocks: int
) -> str:
    """Return CUDA C++ with the kernel function `depthwise`.

    Args:
        dtype: dtype of the maps, float16 or bfloat16.
        kernel: kernel size, odd.
        stride: 1 or 2.
        multiplier: output channels per input channel, 1 or 2.
        channels: channels of the input.
        act: whether GELU follows.
        strip: output columns that a thread computes.
        blocks: number of blocks that must fit on a multiprocessor.
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
    """Return the shared memory of a block in bytes: a float2 per tap and channel pair, at most one pair per thread."""
    return kernel * kernel * min(out_channels // 2, THREADS) * 8


def grid(batch: int, out_height: int, out_width: int, out_channels: int, strip: int, rows: int) -> tuple[int, int, int]:
    """Return the size of the launch.

    Args:
        batch: number of images.
        out_height: height of the output, in pixels.
        out_width: width of the output, in pixels.
        out_channels: channels of the output.
        strip: output columns that a thread computes.
        rows: output rows that a thread computes.

    Returns:
        Threads with work in a row of blocks, blocks in a row, and chunks of rows.
    """
    items = batch * -(-out_width // strip) * (out_channels // 2)
    return items, -(-items // THREADS), -(-out_height // rows)


@cache
def _kernel(text: str, device: int, shared: int) -> Kernel:
    return Kernel(text, "depthwise", device, shared)


def depthwise(
    x: Tensor, weight: Tensor, bias: Tensor, kernel: int, stride: int, act: bool, strip: int, blocks: int, rows: int
) -> Tensor:
    """Convolve a map on a GPU, with padding kernel // 2.

    Args:
        x: map, (B, H, W, C), contiguous, float16 or bfloat16, C even.
        weight: weights, (kernel * kernel, C or 2 C), float32.
        bias: biases, (C or 2 C,), float32.
        kernel: kernel size, odd.
        stride: 1 or 2.
        act: whether GELU follows.
        strip: output columns that a thread computes.
        blocks: number of blocks that must fit on a multiprocessor.
        rows: output rows that a thread computes.

    Returns:
        (B, H / stride, W / stride, C or 2 C), sides rounded up.
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
