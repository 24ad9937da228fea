"""The kernel of stem.cu: its text for a shape, its weights as it wants them, and its launch."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor
from torch.nn import functional as F

from fastvit.kernels.inference.cuda_text import TYPES, kernel_text
from fastvit.kernels.inference.fragments import four_in_a_row, fragments
from fastvit.kernels.inference.nvrtc import INT32, INT64, POINTER, Kernel

# Rows of outputs of a block of threads.
_ROWS = 8
# Its columns, its warps, and blocks that are to fit a multiprocessor; the likeliest first.
# 8 rows of 8 columns need 19 times 16 pixels of the first map, of 16 columns 36 times.
BLOCKS = ((8, 10, 3), (16, 12, 2), (8, 8, 3))
_SIGNATURE = (POINTER,) * 7 + (INT32,) * 2 + (INT64,) * 4
# Bytes of shared memory of a multiprocessor of an H100, and what each block takes for itself.
_SHARED, _OWN = 228 * 1024, 1024


@dataclass(frozen=True)
class Weights:
    """Of the three convolutions, as the kernel wants them."""

    first: Tensor
    second: Tensor
    second_bias: Tensor
    third: Tensor
    third_bias: Tensor


def padded(channels: int) -> int:
    """To the next multiple of 16."""
    return -(-channels // 16) * 16


def shared_bytes(channels: int, out: int, columns: int) -> int:
    """Shared memory of a block."""
    pitch, wide = 2 * padded(out) + 16, 2 * columns + 1
    image = 2 * (channels * (4 * _ROWS + 3) * (2 * wide + 1) + 2)
    tiles = -(-(2 * _ROWS + 1) * wide // 16)
    return tiles * 16 * pitch + max(image, _ROWS * columns * pitch)


def blocks(channels: int, out: int) -> list[tuple[int, int, int]]:
    """Those of BLOCKS that fit; none where there is no kernel."""
    if out % 4:
        return []
    return [b for b in BLOCKS if b[2] * (shared_bytes(channels, out, b[0]) + _OWN) <= _SHARED]


def pack(first: Tensor, second: Tensor, second_bias: Tensor, third: Tensor, third_bias: Tensor) -> Weights:
    """Of a stem's layers.

    Args:
        first: (taps + 1, out): weights in the order of channel, row and column, and the bias as a row behind them.
        second: (9, out), float32.
        second_bias: (out,), float32.
        third: (out, out), the output's channels first.
        third_bias: (out,).
    """
    rows, out = first.shape
    more = padded(out) - out
    return Weights(
        fragments(F.pad(first, (0, more, 0, -rows % 16)).t()),
        F.pad(second.float(), (0, more)).contiguous(),
        F.pad(second_bias.float(), (0, more)).contiguous(),
        fragments(F.pad(third, (0, more, 0, more))[four_in_a_row(out + more)]),
        F.pad(third_bias.float(), (0, more)).contiguous(),
    )


@cache
def source(dtype: torch.dtype, channels: int, out: int, columns: int, warps: int, blocks: int) -> str:
    """CUDA C++ with an entry `stem`."""
    number, suffix = TYPES[dtype]
    sizes = {"IN": channels, "OUT": out, "ROWS": _ROWS, "COLUMNS": columns, "WARPS": warps, "BLOCKS": blocks}
    constants = {**sizes, "SUFFIX": f'"{suffix}"'}
    return kernel_text("stem", constants, f"typedef {number} Number;\n")


def grid(batch: int, out_height: int, out_width: int, columns: int) -> int:
    """Blocks of threads."""
    return batch * -(-out_height // _ROWS) * -(-out_width // columns)


@cache
def _kernel(text: str, device: int, shared: int) -> Kernel:
    return Kernel(text, "stem", device, shared)


def stem(x: Tensor, weights: Weights, out: int, columns: int, warps: int, blocks: int) -> Tensor:
    """Run it on a GPU.

    Args:
        x: (B, H, W, C), float16 or bfloat16, of any strides.
        weights: from `pack`.
        out: channels of the output.
        columns, warps, blocks: as in BLOCKS.
    """
    batch, height, width, channels = x.shape
    y = x.new_empty(batch, -(-height // 4), -(-width // 4), out)
    text = source(x.dtype, channels, out, columns, warps, blocks)
    run = _kernel(text, x.device.index or 0, shared_bytes(channels, out, columns))
    tensors = x, weights.first, weights.second, weights.second_bias, weights.third, weights.third_bias, y
    addresses = [tensor.data_ptr() for tensor in tensors]
    strides = x.stride(0), x.stride(3), x.stride(1), x.stride(2)
    run(
        (grid(batch, y.shape[1], y.shape[2], columns), 1), 32 * warps, (*addresses, height, width, *strides), _SIGNATURE
    )
    return y
