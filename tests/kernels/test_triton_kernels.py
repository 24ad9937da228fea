"""Every Triton kernel against float64, without a GPU in its interpreter: odd sizes and widths, poisoned outputs."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from fastvit.kernels.inference.attention import Attention
from fastvit.kernels.inference.depthwise import Depthwise
from fastvit.kernels.inference.feed_forward import FeedForward, split
from fastvit.kernels.inference.gated_pool import GatedPool
from fastvit.kernels.inference.pointwise import Pointwise
from fastvit.kernels.inference.stem import Stem
from fastvit.kernels.inference.step import TORCH, Choice, Step
from fastvit.kernels.inference.tuning import first_that_runs
from fastvit.model.layers import SqueezeExcite
from fastvit.model.variants import VARIANTS
from tests.kernels.maps import DEVICE, ROUNDING, error, noise, noisy

pytest.importorskip("triton")
F16, BF16 = torch.float16, torch.bfloat16


@pytest.fixture(autouse=True)
def _poisoned() -> Iterator[None]:
    """What a kernel leaves unwritten is NaN: PyTorch fills new memory with it in this mode."""
    torch.use_deterministic_algorithms(True, warn_only=True)
    assert torch.empty(1).isnan()
    yield
    torch.use_deterministic_algorithms(False)


def check(step: Step, exact: Step, x: Tensor, residual: Tensor | None, choice: Choice, rounding: float = 1.0) -> None:
    """The output is as near to the reference as rounding allows, times so much, and the same again."""
    if DEVICE == "cpu" and x.dtype == BF16:
        pytest.skip("Triton's interpreter cuts float32 off to bfloat16, and multiplies their bits")
    reference = exact.torch(x.double(), None if residual is None else residual.double())
    before = x.clone()
    output = step.run(x, residual, choice)
    assert output.dtype == x.dtype
    assert output.is_contiguous()
    assert error(output, reference) < rounding * ROUNDING[x.dtype], choice
    assert torch.equal(output, step.run(x, residual, choice))
    assert torch.equal(x, before)


def exactly(layer: nn.Module) -> nn.Module:
    """The same numbers in float64."""
    return copy.deepcopy(layer).double()


def blocks(**sizes: int) -> Choice:
    return Choice.of("triton", **sizes, num_warps=4)


@pytest.mark.parametrize(
    ("kernel", "stride", "channels", "out", "size", "act", "dtype"),
    [
        (7, 1, 24, 24, (3, 9), False, F16),
        (7, 2, 11, 22, (3, 7), False, F16),
        (3, 1, 32, 32, (1, 5), True, BF16),
        (3, 2, 20, 20, (6, 9), True, F16),
        (3, 1, 3, 6, (5, 4), False, F16),
    ],
)
def test_depthwise(
    kernel: int, stride: int, channels: int, out: int, size: tuple[int, int], act: bool, dtype: torch.dtype
) -> None:
    conv = noisy(nn.Conv2d(channels, out, kernel, stride, kernel // 2, groups=channels), dtype)
    step, x = Depthwise(conv, act), noise(1 + act, *size, channels, dtype=dtype)
    choice = blocks(BLOCK_H=2, BLOCK_W=8, BLOCK_C=32)
    check(step, Depthwise(exactly(conv), act), x, None, choice)


@pytest.mark.parametrize(
    ("channels", "out", "pixels", "act", "joins", "dtype"),
    [(48, 48, 35, True, False, F16), (76, 228, 20, False, False, F16), (40, 76, 33, False, True, BF16)],
)
def test_pointwise(channels: int, out: int, pixels: int, act: bool, joins: bool, dtype: torch.dtype) -> None:
    layer = noisy(nn.Conv2d(channels, out, 1), dtype)
    x = noise(1, pixels, 1, channels, dtype=dtype)
    residual = noise(1, pixels, 1, out, dtype=dtype, seed=1) if joins else None
    choice = blocks(BLOCK_M=16, BLOCK_N=32, BLOCK_K=32)
    check(Pointwise(layer, act, joins), Pointwise(exactly(layer), act, joins), x, residual, choice)


@pytest.mark.parametrize(
    ("channels", "hidden", "pixels", "dtype"),
    [(48, 144, 21, F16), (76, 100, 17, F16), (64, 256, 16, BF16), (16, 20, 3, F16), (152, 64, 5, F16)],
)
def test_feed_forward(channels: int, hidden: int, pixels: int, dtype: torch.dtype) -> None:
    up, down = noisy(nn.Conv2d(channels, hidden, 1), dtype), noisy(nn.Conv2d(hidden, channels, 1), dtype, 1)
    x, residual = (noise(1, 1, pixels, channels, dtype=dtype, seed=seed) for seed in (2, 3))
    exact = FeedForward(exactly(up), exactly(down))
    # The hidden map is rounded on its way into the second product.
    check(FeedForward(up, down), exact, x, residual, blocks(BLOCK_M=16, BLOCK_N=32), 1.2)
    options = {"BLOCK_M": 16, "BLOCK_N": 32, "num_warps": 4}
    both = [{f"{part}_{name}": value for name, value in options.items()} for part in ("up", "down")]
    two = Choice.of("two", up_BLOCK_K=32, down_BLOCK_K=64, **both[0], **both[1])
    check(FeedForward(up, down), exact, x, residual, two, 1.2)


def test_the_familys_widths_are_cut_with_little_to_spare() -> None:
    for width in {stage.width for row in VARIANTS.values() for stage in row.config.stages}:
        first, second = split(width)
        assert width <= first + second <= 1.1 * width
        assert first & (first - 1) == 0 == second & (second - 1)
    assert split(76) == (64, 16)
    assert split(8) == (16, 0)
    assert split(120) == (128, 0)


@pytest.mark.parametrize(
    ("channels", "out", "size"),
    [(3, 48, (9, 12)), (3, 16, (8, 16)), (1, 16, (18, 21)), (4, 76, (2, 3)), (3, 64, (1, 1))],
)
@pytest.mark.parametrize("memory", ["nchw", "nhwc"])
def test_stem(channels: int, out: int, size: tuple[int, int], memory: str) -> None:
    layers = noisy(
        nn.Sequential(
            nn.Conv2d(channels, out, 3, 2, 1), nn.Conv2d(out, out, 3, 2, 1, groups=out), nn.Conv2d(out, out, 1)
        )
    )
    x = noise(2, channels, *size).permute(0, 2, 3, 1)
    x = x.contiguous() if memory == "nhwc" else x
    # One map is rounded on its way into the last product.
    check(Stem(*layers), Stem(*exactly(layers)), x, None, blocks(BLOCK_M=16, ROWS=2), 1.5)


@pytest.mark.parametrize(("channels", "pixels"), [(96, (3, 5)), (64, (1, 1))])
def test_gated_pool(channels: int, pixels: tuple[int, int]) -> None:
    gate = noisy(SqueezeExcite(channels, 1 / 16))
    x = noise(3, *pixels, channels)
    check(GatedPool(gate), GatedPool(exactly(gate)), x, None, blocks(BLOCK_P=4, BLOCK_H=4))


@pytest.mark.parametrize(("channels", "head", "pixels"), [(64, 32, (4, 4)), (48, 16, (3, 7)), (32, 32, (1, 1))])
def test_attention(channels: int, head: int, pixels: tuple[int, int]) -> None:
    step, x = Attention(channels, head), noise(2, *pixels, 3 * channels)
    assert len(step.choices(x, ["triton"])) == 2
    # The weights are rounded on their way into the second product.
    check(step, step, x, None, Choice.of("triton", num_warps=4), 1.5)
    assert step.choices(x.new_empty(1, 12, 12, 3 * channels), ["triton"]) == []
    assert Attention(48, 24).choices(x, ["triton"]) == []


@pytest.mark.skipif(DEVICE != "cpu", reason="a GPU runs them")
def test_a_choice_that_does_not_run_here_is_passed_over() -> None:
    """CUDA C++ does not run on a CPU; Triton's interpreter does."""
    step, x = Depthwise(noisy(nn.Conv2d(16, 16, 3, 1, 1, groups=16))), noise(1, 4, 4, 16)
    cuda, triton = (next(choice for choice in step.choices(x, [name])) for name in ("cuda", "triton"))
    assert first_that_runs(step, x, None, [cuda, triton]) == triton
    assert first_that_runs(step, x, None, [cuda]) == TORCH


def test_a_nan_stays_one() -> None:
    layer = noisy(nn.Conv2d(16, 16, 1))
    x = noise(1, 4, 1, 16)
    x[0, 2, 0, 3] = torch.nan
    output = Pointwise(layer, act=True).run(x, None, blocks(BLOCK_M=16, BLOCK_N=16, BLOCK_K=16))
    assert output[0, 2].isnan().all()
    assert output[0, [0, 1, 3]].isfinite().all()
