"""The Triton kernels of training against plain torch, in Triton's interpreter; run by `test_training_triton`."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from fastvit.kernels.training import dispatch, passes_torch, passes_triton
from fastvit.kernels.training.branch_sum import branch_sum
from fastvit.kernels.training.depthwise import depthwise_conv

CHANNELS = 70  # more than a tile of channels
HALF = {torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 2e-2}


def test_it_is_interpreted() -> None:
    assert dispatch.interpreted()
    assert dispatch.use_triton(torch.zeros(1))
    assert not dispatch.use_triton(torch.zeros(1, dtype=torch.float64))


def new(dtype: torch.dtype, *shape: int) -> Tensor:
    return dispatch.channels_last(torch.randn(shape) * 2 + 3).to(dtype)


def close(mine: Tensor, exact: Tensor, dtype: torch.dtype) -> None:
    tolerance = HALF[dtype] * float(exact.abs().max())
    torch.testing.assert_close(mine.double(), exact.double(), rtol=0, atol=tolerance)


@pytest.mark.parametrize("gelu", [False, True])
@pytest.mark.parametrize(
    "dtypes",
    [
        (torch.float32,),
        (torch.bfloat16, torch.bfloat16),
        (torch.float32, torch.bfloat16),
        (torch.float16, torch.float16, torch.float32),
    ],
)
def test_passes(dtypes: tuple[torch.dtype, ...], gelu: bool) -> None:
    """Against the reference in float64, given the same maps."""
    torch.manual_seed(0)
    count, widest = len(dtypes), max(dtypes, key=lambda dtype: torch.finfo(dtype).bits)
    maps = [new(dtype, 2, CHANNELS, 9, 8) for dtype in dtypes]
    grad = new(dtypes[0], 2, CHANNELS, 9, 8)
    exact = [one.double() for one in maps]
    slopes, own, constant = (torch.randn(count, CHANNELS) for _ in range(3))
    offset = torch.randn(CHANNELS)
    many = slopes.double(), offset.double()
    pulled, _ = passes_torch.before_gelu(grad.double(), exact, *many, gelu)

    for mine, theirs in zip(passes_triton.moments(maps), passes_torch.moments(exact), strict=True):
        close(mine, theirs, torch.float32)
    out = passes_triton.combine(maps, slopes, offset, gelu, widest)
    assert out.dtype == widest
    close(out, passes_torch.combine(exact, *many, gelu, torch.float64), widest)
    mean = torch.randn(count, CHANNELS)
    mine = passes_triton.gradient_sums(grad, maps, mean, slopes, offset, gelu)
    theirs = passes_torch.gradient_sums(pulled, exact, mean.double(), *many, False)
    for a, b in zip(mine, theirs, strict=True):
        close(a, b, torch.float32)
    made = passes_triton.gradients(grad, maps, own, constant, slopes, offset, gelu)
    expected = passes_torch.gradients(pulled, exact, own.double(), constant.double(), *many, False)
    for a, b, dtype in zip(made, expected, dtypes, strict=True):
        assert a.dtype == dtype
        close(a, b, dtype)


def test_a_large_mean_does_not_drown_the_variance() -> None:
    x = dispatch.channels_last(torch.randn(4, 3, 40, 40) * 0.01 + 1000.0)
    _, variance = passes_triton.moments([x])
    close(variance[0], x.double().var((0, 2, 3), correction=0), torch.bfloat16)


# Channels, filters a channel, kernel, stride, height and width.
CONVOLUTIONS = [(70, 1, 3, 1, 5, 6), (33, 1, 7, 1, 9, 5), (3, 2, 7, 2, 5, 4), (2, 2, 3, 2, 6, 5), (4, 1, 5, 1, 3, 3)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("channels", "filters", "kernel", "stride", "height", "width"), CONVOLUTIONS)
def test_depthwise_convolution(
    channels: int, filters: int, kernel: int, stride: int, height: int, width: int, dtype: torch.dtype
) -> None:
    """Through the operator: forward and both gradients."""
    torch.manual_seed(0)
    x = torch.randn(2, channels, height, width).to(dtype).requires_grad_()
    weight = torch.randn(channels * filters, 1, kernel, kernel).to(dtype).requires_grad_()
    out = depthwise_conv(x, weight, stride)
    exact = [tensor.detach().double().requires_grad_() for tensor in (x, weight)]
    expected = F.conv2d(*exact, None, stride, kernel // 2, 1, channels)
    close(out.detach(), expected.detach(), dtype)
    pull = torch.randn(out.shape).to(dtype)
    mine = torch.autograd.grad(out, (x, weight), pull)
    for ours, theirs in zip(mine, torch.autograd.grad(expected, exact, pull.double()), strict=True):
        close(ours, theirs, dtype)


@pytest.mark.parametrize("gelu", [False, True])
def test_branch_sum(gelu: bool) -> None:
    """Through the operator, with a gradient of another dtype and memory format."""
    torch.manual_seed(0)
    maps = [torch.randn(2, 5, 4, 6, requires_grad=True), torch.randn(2, 5, 4, 6).requires_grad_()]
    rows = [
        torch.randn(4, 5, requires_grad=True),
        torch.randn(4, 5, requires_grad=True),
        torch.randn(5).requires_grad_(),
    ]
    options = [3, 1], 0, 1e-5, gelu, None
    out = branch_sum(maps, *rows, *options)[0]
    exact = [[tensor.detach().double().requires_grad_() for tensor in some] for some in (maps, rows)]
    expected = branch_sum(exact[0], *exact[1], *options)[0]
    close(out.detach(), expected.detach(), torch.float32)
    pull = torch.randn(out.shape)
    mine = torch.autograd.grad(out, [*maps, *rows], pull)
    for ours, theirs in zip(mine, torch.autograd.grad(expected, [*exact[0], *exact[1]], pull.double()), strict=True):
        close(ours, theirs, torch.float32)
