"""The operators of the collapsed train form, in plain torch: float64, against torch's own and finite differences."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck
from torch.nn import functional as F

from fastvit.kernels.training.branch_sum import branch_sum
from fastvit.kernels.training.depthwise import depthwise_conv
from fastvit.kernels.training.pointwise import norm_pointwise, pointwise
from fastvit.kernels.training.subsample import subsample

EPS = 1e-5


def maps(count: int, *shape: int) -> list[Tensor]:
    return [(torch.randn(shape, dtype=torch.float64) * 3 + 1).requires_grad_() for _ in range(count)]


def rows(*shape: int) -> Tensor:
    return torch.randn(shape, dtype=torch.float64).requires_grad_()


# Terms of each map, and the index of the map that is skipped.
SUMS = [([1], -1), ([1], 0), ([3, 1], 0), ([1, 1], -1), ([2, 1, 1], 2)]


@pytest.mark.parametrize("gelu", [False, True])
@pytest.mark.parametrize(("terms", "skip"), SUMS)
def test_branch_sum_is_batch_norms_added_up(terms: list[int], skip: int, gelu: bool) -> None:
    images, total = maps(len(terms), 3, 4, 5, 2), sum(terms)
    factor, gain, shift = rows(total, 4), rows(total, 4), rows(4)
    out, mean, variance, count = branch_sum(images, factor, gain, shift, terms, skip, EPS, gelu, None)

    seen = [one for one, times in zip(images, terms, strict=True) for _ in range(times)]
    expected = shift.view(1, -1, 1, 1) + (images[skip] if skip >= 0 else 0)
    for one, f, g in zip(seen, factor, gain, strict=True):
        expected = expected + F.batch_norm(one * f.view(1, -1, 1, 1), None, None, g, None, True, 0.1, EPS)
    expected = F.gelu(expected) if gelu else expected
    torch.testing.assert_close(out, expected, rtol=1e-12, atol=1e-12)
    assert out.is_contiguous(memory_format=torch.channels_last)
    stacked = torch.stack(images).detach()
    torch.testing.assert_close(mean, stacked.mean((1, 3, 4)), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(variance, stacked.var((1, 3, 4), correction=0), rtol=1e-12, atol=1e-12)
    assert int(count) == 30

    pull = torch.randn_like(out)
    leaves = [*images, factor, gain, shift]
    mine = torch.autograd.grad((out * pull).sum(), leaves)
    theirs = torch.autograd.grad((expected * pull).sum(), leaves)
    for ours, other in zip(mine, theirs, strict=True):
        torch.testing.assert_close(ours, other, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("gelu", [False, True])
def test_branch_sum_against_finite_differences(gelu: bool) -> None:
    images = maps(2, 2, 2, 3, 2)

    def summed(first: Tensor, second: Tensor, factor: Tensor, gain: Tensor, shift: Tensor) -> Tensor:
        return branch_sum([first, second], factor, gain, shift, [3, 1], 0, EPS, gelu, None)[0]

    assert gradcheck(summed, (*images, rows(4, 2), rows(4, 2), rows(2)))


def test_branch_sum_of_half_precision_has_statistics_in_float32() -> None:
    """Maps of bfloat16, far from zero, where sums or squares in bfloat16 would be useless."""
    images = [(torch.randn(8, 4, 16, 16) + 30).bfloat16().requires_grad_() for _ in range(2)]
    one, shift = torch.ones(2, 4), torch.zeros(4)
    out, mean, variance, _ = branch_sum(images, one, one, shift, [1, 1], -1, EPS, False, None)
    assert (out.dtype, mean.dtype, variance.dtype) == (torch.bfloat16, torch.float32, torch.float32)
    exact = torch.stack(images).detach().double()
    torch.testing.assert_close(mean.double(), exact.mean((1, 3, 4)), rtol=1e-6, atol=0)
    torch.testing.assert_close(variance.double(), exact.var((1, 3, 4), correction=0), rtol=1e-4, atol=0)
    centered = exact - exact.mean((1, 3, 4), keepdim=True)
    expected = (centered / (exact.var((1, 3, 4), correction=0, keepdim=True) + EPS).sqrt()).sum(0)
    torch.testing.assert_close(out.double(), expected, rtol=0, atol=0.03)
    out.square().sum().backward()
    assert all(image.grad.dtype == torch.bfloat16 for image in images)


# Channels, filters a channel, kernel, stride, height and width: maps that are smaller than the kernel among them.
CONVOLUTIONS = [
    (3, 1, 3, 1, 6, 5),
    (3, 1, 7, 1, 9, 8),
    (2, 1, 7, 1, 2, 3),
    (2, 1, 5, 1, 1, 1),
    (3, 2, 7, 2, 7, 4),
    (2, 2, 3, 1, 4, 4),
    (3, 1, 3, 2, 5, 6),
]


@pytest.mark.parametrize(("channels", "filters", "kernel", "stride", "height", "width"), CONVOLUTIONS)
def test_depthwise_convolution(channels: int, filters: int, kernel: int, stride: int, height: int, width: int) -> None:
    (x,), weight = maps(1, 2, channels, height, width), rows(channels * filters, 1, kernel, kernel)
    out = depthwise_conv(x, weight, stride)
    expected = F.conv2d(x, weight, None, stride, kernel // 2, 1, channels)
    torch.testing.assert_close(out, expected, rtol=1e-12, atol=1e-12)
    assert out.is_contiguous(memory_format=torch.channels_last)
    pull = torch.randn_like(out)
    mine = torch.autograd.grad((out * pull).sum(), (x, weight))
    theirs = torch.autograd.grad((expected * pull).sum(), (x, weight))
    for ours, other in zip(mine, theirs, strict=True):
        torch.testing.assert_close(ours, other, rtol=1e-11, atol=1e-11)
    assert gradcheck(depthwise_conv, (x, weight, stride))


def test_pointwise_convolution_of_a_norm() -> None:
    (y,), weight, bias, gain, shift = maps(1, 3, 4, 5, 2), rows(6, 4, 1, 1), rows(6), rows(4), rows(4)
    out, mean, variance, count = norm_pointwise(y, weight, bias, gain, shift, EPS, None)
    expected = F.conv2d(F.batch_norm(y, None, None, gain, shift, True, 0.1, EPS), weight, bias)
    torch.testing.assert_close(out, expected, rtol=1e-12, atol=1e-12)
    assert out.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(mean[0], y.mean((0, 2, 3)), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(variance[0], y.var((0, 2, 3), correction=0), rtol=1e-12, atol=1e-12)
    assert int(count) == 30
    leaves, pull = (y, weight, bias, gain, shift), torch.randn_like(out)
    mine = torch.autograd.grad((out * pull).sum(), leaves)
    for ours, theirs in zip(mine, torch.autograd.grad((expected * pull).sum(), leaves), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)


def test_pointwise_against_finite_differences() -> None:
    (y,), leaves = maps(1, 2, 2, 3, 2), (rows(3, 2, 1, 1), rows(3), rows(2), rows(2))
    assert gradcheck(lambda *inputs: norm_pointwise(*inputs, EPS, None)[0], (y, *leaves))
    assert gradcheck(pointwise, (y, *leaves[:2]))
    torch.testing.assert_close(pointwise(y, *leaves[:2]), F.conv2d(y, *leaves[:2]), rtol=1e-12, atol=1e-12)


def test_pointwise_gradients_of_half_precision_do_not_cancel() -> None:
    """A map far from zero: the norm's gradients are small differences of large sums."""
    y = (torch.randn(16, 8, 12, 12) + 20).bfloat16()
    weight, bias, gain, shift = torch.randn(6, 8, 1, 1), torch.randn(6), torch.rand(8) + 0.5, torch.randn(8)
    pull, found = torch.randn(16, 6, 12, 12).bfloat16(), []
    for dtype in (torch.bfloat16, torch.float64):
        wide = torch.promote_types(dtype, torch.float32)
        leaves = [y.to(dtype).requires_grad_(), *(t.to(wide).requires_grad_() for t in (weight, bias, gain, shift))]
        out = norm_pointwise(*leaves, EPS, None)[0]
        found.append(torch.autograd.grad(out, leaves, pull.to(dtype)))
    for ours, exact in zip(*found, strict=True):
        assert (ours.double() - exact).norm() < 0.01 * exact.norm()


def test_subsample() -> None:
    (x,) = maps(1, 2, 3, 5, 4)
    torch.testing.assert_close(subsample(x, 2), x[:, :, ::2, ::2], rtol=0, atol=0)
    assert gradcheck(subsample, (x, 2))


def test_operators_are_known_to_the_compiler() -> None:
    """Schemas, fake tensors (shapes and strides), autograd and dynamic shapes, as torch checks them."""
    x, y = maps(2, 2, 4, 5, 6)
    ops = torch.ops.fastvit
    norm = rows(6, 4, 1, 1), rows(6), rows(4), rows(4), EPS, None
    terms = rows(4, 4), rows(4, 4), rows(4), [3, 1], 0, EPS, True, None
    torch.library.opcheck(ops.depthwise_conv.default, (x, rows(8, 1, 7, 7), 2))
    torch.library.opcheck(ops.subsample.default, (x, 2))
    torch.library.opcheck(ops.norm_pointwise.default, (x, *norm))
    torch.library.opcheck(ops.pointwise.default, (x, *norm[:2]))
    torch.library.opcheck(ops.branch_sum.default, ([x, y], *terms))


def test_direct_calls_are_what_the_dispatcher_calls() -> None:
    """Bit for bit, gradients too; the dispatcher sees what is exported, and not what is called as it is."""
    x, y, factor, gain, shift = rows(2, 4, 5, 6), rows(2, 4, 5, 6), rows(4, 4), rows(4, 4), rows(4)
    leaves = [one.requires_grad_() for one in (x, y, factor, gain, shift)]
    found = []
    for call in (branch_sum, torch.ops.fastvit.branch_sum.default):
        out = call([x, y], factor, gain, shift, [3, 1], 0, EPS, True, None)[0]
        found.append((out.detach(), *torch.autograd.grad(out.square().sum(), leaves)))
        assert ("Differentiable" in out.grad_fn.name()) == (call is branch_sum)
    for ours, theirs in zip(*found, strict=True):
        assert torch.equal(ours, theirs)
