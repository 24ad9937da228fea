"""The operators `fastvit::norm_pointwise` and `fastvit::pointwise`: 1x1 convolutions as matrix products.

A 1x1 convolution of a batch norm, W (a (y - mean) + shift) + bias, is a convolution of y with a in its weights: the
normalized map is never computed. In the backward pass, the sums over pixels that the norm needs follow from the
gradient of the weights, which is needed anyway: sum(grad_normed * (y - mean)) is W times that gradient, summed over the
outputs.

Maps are channels last, so that they are matrices of pixels by channels. On CPUs the backward pass of a matrix product
is also faster than that of oneDNN's 1x1 convolution.
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
        y: map, (B, C, H, W).
        weight: filters, (O, C, 1, 1).
        bias: biases of the convolution, (O,).
        gain: weight of the batch norm, (C,).
        shift: bias of the batch norm, (C,).
        eps: epsilon of the batch norm.
        group: name of the process group that shares batch statistics; None for this process only.

    Returns:
        (B, O, H, W) in the dtype of y, channels last; then mean and biased variance, each (1, C), and the number of
        pixels that they are taken over, a scalar tensor.
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
    """Compute the gradients of `norm_pointwise`.

    Args:
        grad: gradient of the output, (B, O, H, W).
        y: map, (B, C, H, W).
        mean: mean that `norm_pointwise` returned.
        variance: variance that `norm_pointwise` returned.
        count: number of pixels that `norm_pointwise` returned.
        weight: filters, (O, C, 1, 1).
        gain: weight of the batch norm, (C,).
        shift: bias of the batch norm, (C,).
        eps: epsilon of the batch norm.
        group: name of the process group that shares batch statistics; None for this process only.

    Returns:
        The gradients of y, weight, bias, gain and shift.
    """
    grad, y = channels_last(grad), channels_last(y)
    with torch.cuda.device_of(y), torch.autocast(y.device.type, enabled=False):
        inverse, matrix = (variance[0] + eps).rsqrt(), weight.flatten(1).to(mean)
        wide_gain, rows = gain.to(mean), _rows(grad)
        slope = wide_gain * inverse
        total = rows.sum(0, dtype=mean.dtype)
        # Sums of gradient * (y - mean), for each pair of channels.
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
    """Convolve a map with 1x1 filters.

    Args:
        x: map, (B, C, H, W).
        weight: filters, (O, C, 1, 1), in the dtype of x.
        bias: biases, (O,), in the dtype of x.

    Returns:
        (B, O, H, W), channels last.
    """
    x = channels_last(x)
    with torch.autocast(x.device.type, enabled=False):
        return _map(torch.addmm(bias, _rows(x), weight.flatten(1).t()), x)


@pointwise.register_fake
def _(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return new_map(x, (x.shape[0], weight.shape[0], *x.shape[2:]))


@operator("pointwise_backward")
def pointwise_backward(grad: Tensor, x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Compute the gradients of `pointwise`.

    Args:
        grad: gradient of the output, (B, O, H, W).
        x: map, (B, C, H, W).
        weight: filters, (O, C, 1, 1).

    Returns:
        The gradients of x, weight and bias.
    """
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
    """Return a channels-last map as a matrix of pixels by channels, without a copy."""
    return x.permute(0, 2, 3, 1).reshape(-1, x.shape[1])


def _map(rows: Tensor, like: Tensor) -> Tensor:
    """Return a matrix of pixels by channels as a map of the size of another one."""
    batch, _, height, width = like.shape
    return channels_last(rows.view(batch, height, width, -1).permute(0, 3, 1, 2))


def _product(a: Tensor, b: Tensor, dtype: torch.dtype) -> Tensor:
    """Compute a @ b in a dtype at least as wide as theirs, because the sums may cancel."""
    if a.dtype == dtype:
        return a @ b
    return torch.mm(a, b, out_dtype=dtype) if a.is_cuda else a.to(dtype) @ b.to(dtype)
