"""The operators `fastvit::norm_pointwise` and `fastvit::pointwise`: 1x1 convolutions as matrix products.

A 1x1 convolution of a batch norm, W (a (y - mean) + shift) + bias, is one of y itself, with a in its weights: the
normalized map is never made. Going back, the sums over pixels that the norm needs follow from the gradient of the
weights, which is needed anyway: sum(grad_normed * (y - mean)) is W times that of W, added up over the outputs.

Maps are channels last, so that they are matrices of pixels by channels; on CPUs a matrix product also goes back faster
than oneDNN's 1x1 convolution.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed
from torch import Tensor

from fastvit.kernels.training.branch_sum import passes_for, shared_statistics, summed_over
from fastvit.kernels.training.dispatch import channels_last, new_map
from fastvit.kernels.training.operators import operator


@operator("norm_pointwise")
def norm_pointwise(
    y: Tensor, weight: Tensor, bias: Tensor, gain: Tensor, shift: Tensor, eps: float, group: str | None
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Normalize a map, and convolve it with 1x1 filters.

    Args:
        y: (B, C, H, W).
        weight: (O, C, 1, 1).
        bias: (O,).
        gain: (C,), of the norm.
        shift: (C,), of the norm.
        eps: of the norm.
        group: as in `fastvit.kernels.training.branch_sum.branch_sum`.

    Returns:
        (B, O, H, W) in the dtype of y, channels last; and as `branch_sum`, mean, biased variance, each (1, C), and
        number of pixels.
    """
    y = channels_last(y)
    with torch.cuda.device_of(y), torch.autocast(y.device.type, enabled=False):
        mean, variance = passes_for([y]).moments([y])
        mean, variance, count = shared_statistics(mean, variance, y, group)
        slope = gain.to(mean) * (variance[0] + eps).rsqrt()
        matrix = weight.flatten(1).to(mean)
        constant = torch.addmv(bias.to(mean), matrix, shift.to(mean) - slope * mean[0])
        out = torch.addmm(constant.to(y.dtype), _rows(y), (matrix * slope).to(y.dtype).t())
    return _map(out, y), mean, variance, count


@norm_pointwise.register_fake
def _(
    y: Tensor, weight: Tensor, bias: Tensor, gain: Tensor, shift: Tensor, eps: float, group: str | None
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    batch, channels, height, width = y.shape
    dtype = torch.promote_types(y.dtype, torch.float32)
    mean, variance = (y.new_empty((1, channels), dtype=dtype) for _ in range(2))
    return new_map(y, (batch, weight.shape[0], height, width)), mean, variance, y.new_empty((), dtype=dtype)


@operator("norm_pointwise_backward")
def norm_pointwise_backward(
    grad: Tensor,
    y: Tensor,
    mean: Tensor,
    variance: Tensor,
    count: Tensor,
    weight: Tensor,
    gain: Tensor,
    shift: Tensor,
    eps: float,
    group: str | None,
) -> list[Tensor]:
    """Gradients of `norm_pointwise`'s y, weight, bias, gain and shift."""
    grad, y = channels_last(grad), channels_last(y)
    with torch.cuda.device_of(y), torch.autocast(y.device.type, enabled=False):
        inverse, matrix = (variance[0] + eps).rsqrt(), weight.flatten(1).to(mean)
        wide_gain, rows = gain.to(mean), _rows(grad)
        slope = wide_gain * inverse
        total = rows.sum(0, dtype=mean.dtype)
        # Of gradient times (y - mean), for each pair of channels.
        products = _product(rows.t(), _rows(y), mean.dtype) - torch.outer(total, mean[0])
        made = slope * products + torch.outer(total, shift.to(mean))
        pulled, pushed = (matrix * products).sum(0), total @ matrix
        parameters = made.view_as(weight), total, inverse * pulled, pushed
        pulled, pushed = summed_over(torch.stack([pulled, pushed]), group).unbind()
        own = -wide_gain * inverse**3 * pulled / count
        constant = -own * mean[0] - slope * pushed / count
        through = torch.addmm(constant.to(y.dtype), rows, (matrix * slope).to(y.dtype))
        through.addcmul_(_rows(y), own.to(y.dtype))
    likes = weight, weight, gain, shift
    return [_map(through, y), *(one.to(like.dtype) for one, like in zip(parameters, likes, strict=True))]


@norm_pointwise_backward.register_fake
def _(
    grad: Tensor,
    y: Tensor,
    mean: Tensor,
    variance: Tensor,
    count: Tensor,
    weight: Tensor,
    gain: Tensor,
    shift: Tensor,
    eps: float,
    group: str | None,
) -> list[Tensor]:
    vectors = [weight.new_empty(weight.shape[:1]), torch.empty_like(gain), torch.empty_like(shift)]
    return [new_map(y, y.shape), weight.new_empty(weight.shape), *vectors]


@operator("pointwise")
def pointwise(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """A 1x1 convolution: (B, C, H, W), (O, C, 1, 1), (O,), of one dtype -> (B, O, H, W), channels last."""
    x = channels_last(x)
    with torch.autocast(x.device.type, enabled=False):
        return _map(torch.addmm(bias, _rows(x), weight.flatten(1).t()), x)


@pointwise.register_fake
def _(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return new_map(x, (x.shape[0], weight.shape[0], *x.shape[2:]))


@operator("pointwise_backward")
def pointwise_backward(grad: Tensor, x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of `pointwise`'s x, weight and bias."""
    grad, x = channels_last(grad), channels_last(x)
    with torch.autocast(x.device.type, enabled=False):
        rows = _rows(grad)
        through = _map(rows @ weight.flatten(1), x)
        return through, (rows.t() @ _rows(x)).view(weight.shape), rows.sum(0)


@pointwise_backward.register_fake
def _(grad: Tensor, x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return new_map(x, x.shape), weight.new_empty(weight.shape), weight.new_empty(weight.shape[:1])


def _keep_normed(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    y, weight, _, gain, shift, ctx.eps, ctx.group = inputs
    ctx.mark_non_differentiable(*output[1:])
    ctx.save_for_backward(y, *output[1:], weight, gain, shift)


def _back_normed(ctx: Any, grad: Tensor, *_: Tensor) -> tuple[Any, ...]:
    made = norm_pointwise_backward(grad, *ctx.saved_tensors, ctx.eps, ctx.group)
    return *made, None, None


def _keep(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor], output: Tensor) -> None:
    ctx.save_for_backward(*inputs[:2])


def _back(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return pointwise_backward(grad, *ctx.saved_tensors)


norm_pointwise.register_autograd(_back_normed, setup_context=_keep_normed)
pointwise.register_autograd(_back, setup_context=_keep)


def _rows(x: Tensor) -> Tensor:
    """A channels-last map as a matrix of pixels by channels; no copy."""
    return x.permute(0, 2, 3, 1).reshape(-1, x.shape[1])


def _map(rows: Tensor, like: Tensor) -> Tensor:
    """The inverse of `_rows`, of as many pixels as another map."""
    batch, _, height, width = like.shape
    return channels_last(rows.view(batch, height, width, -1).permute(0, 3, 1, 2))


def _product(a: Tensor, b: Tensor, dtype: torch.dtype) -> Tensor:
    """A @ b in a dtype at least as wide as theirs, for sums that cancel."""
    if a.dtype == dtype:
        return a @ b
    return torch.mm(a, b, out_dtype=dtype) if a.is_cuda else a.to(dtype) @ b.to(dtype)
