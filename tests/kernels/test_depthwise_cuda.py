"""The CUDA C++ kernel: its arithmetic on the CPU, through a C++ compiler, and that NVRTC makes machine code of it."""

from __future__ import annotations

import copy
import ctypes
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from fastvit.kernels.inference import nvrtc
from fastvit.kernels.inference.depthwise import Depthwise
from fastvit.kernels.inference.depthwise_cuda import STRIPS, THREADS, grid, shared_bytes, source
from tests.kernels.machine import host_library, in_namespace, machine_code
from tests.kernels.maps import ROUNDING, error, noise, noisy

F16, BF16 = torch.float16, torch.bfloat16


@dataclass(frozen=True)
class Case:
    """A convolution of a map, and how it is cut up."""

    kernel: int
    stride: int
    channels: int
    multiplier: int
    size: tuple[int, int]
    strip: int
    rows: int
    batch: int = 1
    act: bool = False
    dtype: torch.dtype = F16

    def step(self) -> Depthwise:
        conv = nn.Conv2d(
            self.channels,
            self.channels * self.multiplier,
            self.kernel,
            self.stride,
            self.kernel // 2,
            groups=self.channels,
        )
        return Depthwise(noisy(conv, self.dtype).cpu(), self.act)

    def text(self, blocks: int = 1) -> str:
        return source(
            self.dtype, self.kernel, self.stride, self.multiplier, self.channels, self.act, self.strip, blocks
        )


FAST = [
    Case(7, 1, 12, 1, (11, 9), strip=4, rows=4, batch=2),
    Case(7, 2, 6, 2, (13, 10), strip=4, rows=3, dtype=BF16),
    Case(3, 2, 6, 1, (9, 12), strip=4, rows=8, act=True, batch=3),
    Case(3, 1, 260, 2, (3, 5), strip=8, rows=2),  # more channel pairs than threads
]
SLOW = [
    Case(7, 1, 38, 1, (17, 33), strip=8, rows=8, batch=2),
    Case(7, 1, 304, 1, (8, 8), strip=8, rows=8),
    Case(7, 1, 64, 1, (1, 1), strip=8, rows=8, batch=5),
    Case(7, 1, 48, 1, (16, 14), strip=7, rows=16, dtype=BF16),
    Case(7, 2, 76, 2, (16, 16), strip=8, rows=8),
    Case(3, 1, 152, 1, (9, 16), strip=8, rows=64, batch=2),
    Case(3, 2, 76, 1, (2, 31), strip=8, rows=16, act=True),
    Case(3, 1, 2, 1, (40, 3), strip=4, rows=8, batch=17),
]


def library_of(cases: list[Case], folder: Path) -> ctypes.CDLL:
    """Every case as a function of its number, for the CPU."""
    parts = []
    numbers = "long long items, int height, int width, int out_height, int out_width, int rows"
    for index, case in enumerate(cases):
        parts.append(in_namespace(f"case_{index}", case.text()))
        parts.append(
            f'extern "C" void run_{index}(void* x, float2* weight, float2* bias, unsigned* y, {numbers}, int across, '
            f"int down) {{ launch(across, down, {THREADS}, [=] {{ case_{index}::depthwise("
            "x, weight, bias, y, items, height, width, out_height, out_width, rows); }); }"
        )
    return host_library("host.h", "\n".join(parts), folder / "cases.so")


def run(library: ctypes.CDLL, index: int, case: Case, step: Depthwise, x: Tensor) -> Tensor:
    batch, height, width, _ = x.shape
    out_height, out_width = step.out_size(x)
    y = torch.full((batch, out_height, out_width, step.out_channels), torch.nan, dtype=x.dtype)
    items, across, down = grid(batch, out_height, out_width, step.out_channels, case.strip, case.rows)
    pointers = [ctypes.c_void_p(tensor.data_ptr()) for tensor in (x, step.weight, step.bias, y)]
    sizes = height, width, out_height, out_width, case.rows, across, down
    getattr(library, f"run_{index}")(*pointers, ctypes.c_longlong(items), *sizes)
    return y


def check_on_the_cpu(cases: list[Case], folder: Path) -> None:
    library = library_of(cases, folder)
    for index, case in enumerate(cases):
        step = case.step()
        x = noise(case.batch, *case.size, case.channels, dtype=case.dtype).cpu()
        exact = Depthwise(copy.deepcopy(step.conv).double(), case.act).torch(x.double())
        output = run(library, index, case, step, x)
        assert error(output, exact) < ROUNDING[case.dtype], case
        assert torch.equal(output, run(library, index, case, step, x))


def test_the_arithmetic(tmp_path: Path) -> None:
    check_on_the_cpu(FAST, tmp_path)


@pytest.mark.slow
def test_the_arithmetic_of_more_shapes(tmp_path: Path) -> None:
    check_on_the_cpu(SLOW, tmp_path)


@pytest.mark.parametrize("arch", ["sm_80", "sm_90"])
def test_it_compiles(arch: str) -> None:
    made = machine_code(Case(7, 1, 64, 1, (64, 64), 8, 16).text(2), arch)
    assert made.registers <= 255
    assert made.spilled == 0


@pytest.mark.slow
@pytest.mark.parametrize("arch", ["sm_80", "sm_90"])
@pytest.mark.parametrize(("kernel", "stride"), STRIPS)
def test_every_launch_fits_its_registers(kernel: int, stride: int, arch: str) -> None:
    for channels, multiplier in ((48, 1), (64, 1), (76, 1), (304, 1), (608, 1), (64, 2), (152, 2), (608, 2)):
        if (multiplier == 2) != (kernel == 7 and stride == 2) and (kernel, multiplier) != (3, 2):
            continue
        for strip, blocks in STRIPS[kernel, stride]:
            case = Case(kernel, stride, channels, multiplier, (64, 64), strip, 16, act=(kernel, stride) == (3, 2))
            made = machine_code(case.text(blocks), arch)
            assert made.spilled == 0, case
            assert made.registers * THREADS * blocks <= 65536
            assert shared_bytes(kernel, channels * multiplier) * blocks <= 227 * 1024


def test_the_compiler_says_what_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    if reason := nvrtc.missing():
        pytest.skip(reason)
    with pytest.raises(RuntimeError, match="sm_90.*nonsense"):
        nvrtc.compile_cuda("nonsense x;", "sm_90")
