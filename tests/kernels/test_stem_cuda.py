"""The stem in CUDA C++: all of it on the CPU through a C++ compiler, and that NVRTC makes machine code of it."""

from __future__ import annotations

import ctypes
from pathlib import Path

import pytest
import torch
from torch import nn

from fastvit.kernels.inference.stem import Stem
from fastvit.kernels.inference.stem_cuda import blocks, grid, source
from tests.kernels.machine import host_library, in_namespace, machine_code
from tests.kernels.maps import ROUNDING, error, noise, noisy

F16, BF16 = torch.float16, torch.bfloat16


@pytest.mark.parametrize(
    ("channels", "out", "size", "config", "dtype", "nhwc"),
    [
        (3, 20, (37, 41), (8, 10, 3), F16, False),  # odd sides, tiles that end beyond the map, a width of padding
        (4, 16, (34, 67), (16, 12, 2), BF16, True),
        pytest.param(3, 48, (33, 70), (16, 12, 2), F16, False, marks=pytest.mark.slow),
        pytest.param(3, 64, (64, 33), (8, 8, 3), F16, True, marks=pytest.mark.slow),
        pytest.param(3, 76, (35, 36), (8, 8, 3), F16, False, marks=pytest.mark.slow),
        pytest.param(1, 64, (1, 1), (8, 8, 3), F16, False, marks=pytest.mark.slow),
    ],
)
def test_on_a_cpu(
    channels: int,
    out: int,
    size: tuple[int, int],
    config: tuple[int, int, int],
    dtype: torch.dtype,
    nhwc: bool,
    tmp_path: Path,
) -> None:
    first, second = nn.Conv2d(channels, out, 3, 2, 1), nn.Conv2d(out, out, 3, 2, 1, groups=out)
    net = noisy(nn.Sequential(first, second, nn.Conv2d(out, out, 1)), dtype).cpu()
    step = Stem(*net)
    x = noise(2, channels, *size, dtype=dtype).cpu().permute(0, 2, 3, 1)
    x = x.contiguous() if nhwc else x
    y = torch.full((2, -(-size[0] // 4), -(-size[1] // 4), out), torch.nan, dtype=dtype)
    parameters = "unsigned short* x, uint2* w1, float2* w2, float2* b2, uint2* w3, float4* b3, unsigned short* y"
    numbers = "int rows, int columns, long long image, long long channel, long long down, long long along"
    names = "x, w1, w2, b2, w3, b3, y, rows, columns, image, channel, down, along"
    text = in_namespace("kernel", source(dtype, channels, out, *config)) + (
        f'extern "C" void run({parameters}, {numbers}, unsigned blocks) {{\n'
        f"    launch_warps(blocks, {32 * config[1]}, [=] {{ kernel::stem({names}); }});\n}}\n"
    )
    library = host_library("warp.h", text, tmp_path / "stem.so", dtype)
    w = step._packed
    tensors = x, w.first, w.second, w.second_bias, w.third, w.third_bias, y
    pointers = [ctypes.c_void_p(tensor.data_ptr()) for tensor in tensors]
    strides = [ctypes.c_longlong(x.stride(i)) for i in (0, 3, 1, 2)]
    library.run(*pointers, *size, *strides, grid(2, y.shape[1], y.shape[2], config[0]))
    # Two maps are rounded on their way.
    assert error(y, Stem(*net.double()).torch(x.double())) < 2 * ROUNDING[dtype]


@pytest.mark.parametrize("arch", ["sm_80", "sm_90"])
def test_it_compiles(arch: str) -> None:
    for out in (48, 64, 76):
        for config in blocks(3, out):
            assert machine_code(source(F16, 3, out, *config), arch).spilled <= 128, (out, config)


def test_widths_without_a_kernel() -> None:
    assert blocks(3, 78) == []
    assert blocks(3, 512) == []
