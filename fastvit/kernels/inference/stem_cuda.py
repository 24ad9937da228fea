"""Kernel of stem.cu: its source text for a shape, its packed weights, and its launch."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor
from torch.nn import functional as F

from fastvit.kernels.inference.cuda_text import TYPES, kernel_text
from fastvit.kernels.inference.fragments import four_in_a_row, fragments
from fastvit.kernels.inference.nvrtc import INT32, INT64, POINTER, Kernel

# Output rows of a thread block.
_ROWS = 8
# Output columns of a thread block, its warps, and blocks that must fit on a multiprocessor; the likeliest first.
# 8 rows of 8 columns need 19 tiles of 16 pixels of the first map; 8 rows of 16 columns need 36.
BLOCKS = ((8, 10, 3), (16, 12, 2), (8, 8, 3))
_SIGNATURE = (POINTER,) * 7 + (INT32,) * 2 + (INT64,) * 4
# Shared memory of a multiprocessor of an H100, and the part that each block reserves, in bytes.
_SHARED, _OWN = 228 * 1024, 1024


@dataclass(frozen=True)
class Weights:
    """Packed weights and biases of the three convolutions; the first bias is among the first weights."""

    first: Tensor
    second: Tensor
    second_bias: Tensor
    third: Tensor
    third_bias: Tensor


def padded(channels: int) -> int:
    """Return the number of channels rounded up to a multiple of 16."""
    return -(-channels // 16) * 16


def shared_bytes(channels: int, out: int, columns: int) -> int:
    """Return the shared memory of a thread block, in bytes.

    Args:
        channels: channels of the images.
        out: channels of the output.
        columns: output columns of a thread block.
    """
    pitch, wide = 2 * padded(out) + 16, 2 * columns + 1
    image = 2 * (channels * (4 * _ROWS + 3) * (2 * wide + 1) + 2)
    tiles = -(-(2 * _ROWS + 1) * wide // 16)
    return tiles * 16 * pitch + max(image, _ROWS * columns * pitch)


def blocks(channels: int, out: int) -> list[tuple[int, int, int]]:
    """Return the entries of BLOCKS that fit; an empty list if the kernel does not support these channels."""
    if out % 4:
        return []
    return [b for b in BLOCKS if b[2] * (shared_bytes(channels, out, b[0]) + _OWN) <= _SHARED]


def pack(first: Tensor, second: Tensor, second_bias: Tensor, third: Tensor, third_bias: Tensor) -> Weights:
    """Pack the weights of a stem in the order in which the kernel needs them.

    Args:
        first: weights of the first convolution, (taps + 1, out): taps by channel, row and column, then the bias.
        second: weights of the second convolution, (9, out), float32.
        second_bias: biases of the second convolution, (out,), float32.
        third: weights of the third convolution, (out, out), output channels first.
        third_bias: biases of the third convolution, (out,).
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
    """Return CUDA C++ with the kernel function `stem`.

    Args:
        dtype: dtype of images and maps, float16 or bfloat16.
        channels: channels of the images.
        out: channels of the output.
        columns: output columns of a thread block.
        warps: warps of a thread block.
        blocks: number of thread blocks that must fit on a multiprocessor.
    """
    number, suffix = TYPES[dtype]
    sizes = {"IN": channels, "OUT": out, "ROWS": _ROWS, "COLUMNS": columns, "WARPS": warps, "BLOCKS": blocks}
    constants = {**sizes, "SUFFIX": f'"{suffix}"'}
    return kernel_text("stem", constants, f"typedef {number} Number;\n")


def grid(batch: int, out_height: int, out_width: int, columns: int) -> int:
    """Return the number of thread blocks.

    Args:
        batch: number of images.
        out_height: height of the output, in pixels.
        out_width: width of the output, in pixels.
        columns: output columns of a thread block.
    """
    return batch * -(-out_height // _ROWS) * -(-out_width // columns)


@cache
def _kernel(text: str, device: int, shared: int) -> Kernel:
    return Kernel(text, "stem", device, shared)


def stem(x: Tensor, weights: Weights, out: int, columns: int, warps: int, blocks: int) -> Tensor:
    """Compute the stem on a GPU.

    Args:
        x: images, (B, H, W, C), float16 or bfloat16, of any strides.
        weights: packed weights from `pack`.
        out: channels of the output.
        columns: output columns of a thread block.
        warps: warps of a thread block.
        blocks: number of thread blocks that must fit on a multiprocessor.

    Returns:
        (B, H / 4, W / 4, out), sides rounded up.
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
