"""Choice between PyTorch and Triton, and maps in the memory format that the kernels need."""

from __future__ import annotations

import importlib.util
from functools import cache

import torch
from torch import Tensor

from fastvit.variables import read_variable

_DTYPES = (torch.float32, torch.float16, torch.bfloat16)


def use_triton(*maps: Tensor) -> bool:
    """Return whether the Triton kernels support these (B, C, H, W) maps.

    They need an NVIDIA GPU of compute capability 8.0 or newer, and float32, float16 or bfloat16.
    """
    return all(one.dtype in _DTYPES and (one.is_cuda or interpreted()) for one in maps) and _has_triton()


@cache
def interpreted() -> bool:
    """Return whether Triton's interpreter runs the kernels on the CPU, a thousand times slower, for tests only.

    Both FASTVIT_INTERPRET and TRITON_INTERPRET must be 1: the second one alone may be set for other kernels. Triton
    reads its variable when a kernel is defined, which is at the first use, too.
    """
    return read_variable("FASTVIT_INTERPRET") == read_variable("TRITON_INTERPRET") == "1"


@cache
def _has_triton() -> bool:
    return importlib.util.find_spec("triton") is not None and (
        interpreted() or (torch.version.hip is None and torch.cuda.get_device_capability() >= (8, 0))
    )


def channels_last(x: Tensor) -> Tensor:
    """Return the map in memory format channels_last; it is not copied if it has this format."""
    return x.contiguous(memory_format=torch.channels_last)


def new_map(like: Tensor, shape: tuple[int, ...], dtype: torch.dtype | None = None) -> Tensor:
    """Return an uninitialized map in memory format channels_last.

    Args:
        like: tensor whose device is used.
        shape: shape of the map, (B, C, H, W).
        dtype: dtype of the map; by default that of `like`.
    """
    return torch.empty(shape, dtype=dtype or like.dtype, device=like.device, memory_format=torch.channels_last)
