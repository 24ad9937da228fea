"""The operator `fastvit::depthwise_conv`: a depthwise convolution whose gradients are limited by memory bandwidth.

The libraries are slow at parts of it. oneDNN has no fast weight gradient for kernels wider than 3 and no fast
convolution with several filters per channel, and it is slow if the memory format is not channels last. cuDNN's weight
gradients take far longer than reading their inputs.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from fastvit.kernels.training import depthwise_torch
from fastvit.kernels.training.dispatch import channels_last, new_map, use_triton
from fastvit.kernels.training.operators import operator


@operator("depthwise_conv")
def depthwise_conv(x: Tensor, weight: Tensor, stride: int) -> Tensor:
    """Convolve each channel by itself, with padding k // 2.

    Args:
        x: map, (B, C, H, W).
        weight: m filters per channel, (C * m, 1, k, k), k odd, in the dtype of x; filters of a channel are adjacent.
        stride: vertical and horizontal stride.

    Returns:
        (B, C * m, H / stride, W / stride), sides rounded up, channels last.
    """
    x = channels_last(x)
    with torch.cuda.device_of(x):
        return _kernels(x, weight).forward(x, weight.contiguous(), stride)


@depthwise_conv.register_fake
def _(x: Tensor, weight: Tensor, stride: int) -> Tensor:
    batch, _, height, width = x.shape
    return new_map(x, (batch, weight.shape[0], (height - 1) // stride + 1, (width - 1) // stride + 1))


@operator("depthwise_conv_backward")
def depthwise_conv_backward(grad: Tensor, x: Tensor, weight: Tensor, stride: int) -> tuple[Tensor, Tensor]:
    """Compute the gradients of `depthwise_conv`.

    Args:
        grad: gradient of the output.
        x: map, (B, C, H, W).
        weight: filters, (C * m, 1, k, k).
        stride: vertical and horizontal stride.

    Returns:
        The gradients of x and weight.
    """
    grad, x, weight = channels_last(grad), channels_last(x), weight.contiguous()
    kernels = _kernels(x, weight)
    with torch.cuda.device_of(x):
        return kernels.input_gradient(grad, x, weight, stride), kernels.weight_gradient(grad, x, weight, stride)


@depthwise_conv_backward.register_fake
def _(grad: Tensor, x: Tensor, weight: Tensor, stride: int) -> tuple[Tensor, Tensor]:
    return new_map(x, x.shape), weight.new_empty(weight.shape)


def _keep(ctx: Any, inputs: tuple[Tensor, Tensor, int], output: Tensor) -> None:
    x, weight, ctx.stride = inputs
    ctx.save_for_backward(x, weight)


def _back(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
    return *depthwise_conv_backward(grad, *ctx.saved_tensors, ctx.stride), None


depthwise_conv.register_autograd(_back, setup_context=_keep)


def _kernels(x: Tensor, weight: Tensor) -> ModuleType:
    """Return the module that computes this convolution: `depthwise_torch` or `depthwise_triton`."""
    if not use_triton(x, weight):
        return depthwise_torch
    from fastvit.kernels.training import depthwise_triton

    return depthwise_triton
