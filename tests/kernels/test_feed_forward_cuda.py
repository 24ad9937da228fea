"""The ConvFFN in CUDA C++ for Hopper: on the CPU through a C++ compiler, and that NVRTC makes machine code of it."""

from __future__ import annotations

import ctypes
from pathlib import Path

import pytest
import torch
from torch import nn

from fastvit.kernels.inference.feed_forward import FeedForward
from fastvit.kernels.inference.feed_forward_cuda import ARCH, Layout, layouts, pack, source
from fastvit.kernels.inference.fragments import four_in_a_row
from tests.kernels.machine import host_library, in_namespace, machine_code
from tests.kernels.maps import ROUNDING, error, noise, noisy

F16, BF16 = torch.float16, torch.bfloat16
# Of the family: channels of a map and of the hidden one.
WIDTHS = [(48, 144), (64, 256), (76, 304), (96, 288), (128, 512), (152, 608), (192, 576), (256, 1024), (304, 1216)]


def run(layout: Layout, dtype: torch.dtype, rows: int, blocks: int, folder: Path) -> float:
    """Error of the kernel, run on the CPU thread by thread, from float64; over what rounding costs."""
    convolutions = nn.Conv2d(layout.channels, layout.hidden, 1), nn.Conv2d(layout.hidden, layout.channels, 1)
    up, down = (noisy(conv, dtype, seed).cpu() for seed, conv in enumerate(convolutions))
    x, residual = (noise(rows, layout.channels, dtype=dtype, seed=seed).cpu() for seed in (2, 3))
    weights = pack(layout, up.weight.flatten(1), up.bias, down.weight.flatten(1))
    y, bias = torch.full_like(x, torch.nan), down.bias.float()
    assert weights.slots.shape == (2 * layout.blocks, layout.slot)

    names = "x, weights, bias_up, bias, residual, y, rows"
    text = in_namespace("kernel", source(layout, dtype)) + (
        'extern "C" void run(unsigned short* x, char* weights, float* bias_up, float* bias, unsigned short* residual, '
        "unsigned short* y, long long rows, unsigned blocks) {\n"
        f"    launch_hopper(blocks, {layout.threads}, [=] {{ kernel::feed_forward({names}); }});\n}}\n"
    )
    path = folder / f"{'-'.join(str(value) for _, value in layout.options)}.so"
    library = host_library("hopper.h", text, path, dtype)
    pointers = [ctypes.c_void_p(tensor.data_ptr()) for tensor in (x, weights.slots, weights.bias, bias, residual, y)]
    library.run(*pointers, ctypes.c_longlong(rows), blocks)
    step = FeedForward(*(nn.Conv2d(*conv.weight.shape[1::-1], 1).double() for conv in (up, down)))
    for part, conv in ((step.up, up), (step.down, down)):
        part.weight, part.bias = conv.weight.double().flatten(1), conv.bias.double()
    return error(y, step.torch(x.double(), residual.double())) / ROUNDING[dtype]


@pytest.mark.parametrize(
    ("layout", "dtype", "rows", "blocks"),
    [
        # All weights in shared memory, a width that is no multiple of 16, a hidden one that is none of a block.
        (Layout(76, 100, 48, 3, 6, 2), F16, 517, 2),
        # Weights that come round and round, in two halves, to one set of pixels.
        (Layout(272, 176, 32, 2, 3, 1), BF16, 300, 2),
    ],
)
def test_on_a_cpu(layout: Layout, dtype: torch.dtype, rows: int, blocks: int, tmp_path: Path) -> None:
    assert run(layout, dtype, rows, blocks, tmp_path) < 1.2


@pytest.mark.slow
@pytest.mark.parametrize(("channels", "hidden"), WIDTHS)
def test_the_family_on_a_cpu(channels: int, hidden: int, tmp_path: Path) -> None:
    for layout in layouts(channels, hidden)[::2]:
        assert run(layout, F16, 64 * layout.groups * 3 - 7, 2, tmp_path) < 1.2, layout


def test_places_are_channels() -> None:
    """Every channel once, and a thread's four of each sixteen in a row."""
    for width in (8, 16, 48, 80, 152, 304):
        assert sorted(four_in_a_row(width)) == list(range(width))
    assert [four_in_a_row(32)[place] for place in (0, 1, 8, 9)] == [0, 1, 2, 3]
    assert [four_in_a_row(32)[place] for place in (22, 23, 30, 31)] == [28, 29, 30, 31]


def test_layouts_of_the_family() -> None:
    for channels, hidden in WIDTHS:
        found = layouts(channels, hidden)
        assert found
        assert len(set(found)) == len(found)
        assert all(layout.fits() for layout in found)
        assert found[0].blocks * found[0].block <= 1.06 * hidden
    assert layouts(66, 256) == []
    assert layouts(264, 256) == []  # two halves of no eights
    assert layouts(608, 2432) == []


def check_machine_code(layout: Layout, dtype: torch.dtype, most: int) -> None:
    """Few spills, and the matrix units at work while GELU is computed."""
    made = machine_code(source(layout, dtype), ARCH)
    assert made.spilled <= most, layout
    assert not made.serialized, layout


@pytest.mark.parametrize(("channels", "hidden"), WIDTHS)
def test_the_likeliest_compiles_without_spills(channels: int, hidden: int) -> None:
    check_machine_code(layouts(channels, hidden)[0], BF16 if channels == 64 else F16, 0)


@pytest.mark.slow
@pytest.mark.parametrize(("channels", "hidden"), WIDTHS)
def test_all_compile(channels: int, hidden: int) -> None:
    for layout in layouts(channels, hidden):
        check_machine_code(layout, F16, 32)
