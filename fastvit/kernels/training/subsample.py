"""The operator `fastvit::subsample`: every second pixel, for example, with a gradient that stays channels last.

Slicing computes the same, but its gradient is not channels last, which makes every later pass slow.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fastvit.kernels.training.dispatch import new_map
from fastvit.kernels.training.operators import operator


@operator("subsample")
def subsample(x: Tensor, stride: int) -> Tensor:
    """Return the pixels of (B, C, H, W) whose row and column are multiples of the stride (2 or more), channels last."""
    return x[:, :, ::stride, ::stride].clone(memory_format=torch.channels_last)


@subsample.register_fake
def _(x: Tensor, stride: int) -> Tensor:
    batch, channels, height, width = x.shape
    return new_map(x, (batch, channels, (height - 1) // stride + 1, (width - 1) // stride + 1))


@operator("subsample_backward")
def subsample_backward(grad: Tensor, height: int, width: int, stride: int) -> Tensor:
    """Compute the gradient of `subsample`.

    Args:
        grad: gradient of the output.
        height: rows of the input.
        width: columns of the input.
        stride: stride of the subsampling.
    """
    made = new_map(grad, (*grad.shape[:2], height, width)).zero_()
    made[:, :, ::stride, ::stride] = grad
    return made


@subsample_backward.register_fake
def _(grad: Tensor, height: int, width: int, stride: int) -> Tensor:
    return new_map(grad, (*grad.shape[:2], height, width))


def _keep(ctx: Any, inputs: tuple[Tensor, int], output: Tensor) -> None:
    x, ctx.stride = inputs
    ctx.height, ctx.width = x.shape[2:]


def _back(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
    return subsample_backward(grad, ctx.height, ctx.width, ctx.stride), None


subsample.register_autograd(_back, setup_context=_keep)
