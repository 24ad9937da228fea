"""Where the Triton kernels can run, and memory in the order that all of them want."""

from __future__ import annotations

import importlib.util
from functools import cache

import torch
from torch import Tensor

from fastvit.variables import read_variable

_DTYPES = (torch.float32, torch.float16, torch.bfloat16)


def use_triton(*maps: Tensor) -> bool:
    """Whether the Triton kernels take these (B, C, H, W) maps: on a GPU that runs them, in single or half precision."""
    return all(one.dtype in _DTYPES and (one.is_cuda or interpreted()) for one in maps) and _has_triton()


@cache
def interpreted() -> bool:
    """Return whether Triton's interpreter runs the kernels: on the CPU, a thousand times slower, for their tests alone.

    Triton reads its variable when a kernel is defined, which is at the first use, too. Whoever sets that one for other
    kernels does not mean a whole training run.
    """
    return read_variable("FASTVIT_INTERPRET") == read_variable("TRITON_INTERPRET") == "1"


@cache
def _has_triton() -> bool:
    return importlib.util.find_spec("triton") is not None and (
        interpreted() or (torch.version.hip is None and torch.cuda.get_device_capability() >= (8, 0))
    )


def channels_last(x: Tensor) -> Tensor:
    """The map with its channels side by side in memory; itself where it is so already."""
    return x.contiguous(memory_format=torch.channels_last)


def new_map(like: Tensor, shape: tuple[int, ...], dtype: torch.dtype | None = None) -> Tensor:
    """Memory for a map, channels last, where `like` is."""
    return torch.empty(shape, dtype=dtype or like.dtype, device=like.device, memory_format=torch.channels_last)
