"""Depthwise convolution in PyTorch: the reference, and the implementation for CPUs. Maps are channels last."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from fastvit.kernels.training.dispatch import channels_last

# Widest kernel of oneDNN's fast weight gradient; any height is supported (oneDNN 3.12, AVX2 and AVX-512).
_WIDEST = 3


def forward(x: Tensor, weight: Tensor, stride: int) -> Tensor:
    """Compute `fastvit.kernels.training.depthwise.depthwise_conv`.

    Args:
        x: map, (B, C, H, W), channels last.
        weight: filters, (C * m, 1, k, k).
        stride: vertical and horizontal stride.
    """
    channels, kernel = x.shape[1], weight.shape[-1]
    with torch.autocast(x.device.type, enabled=False):
        made = [F.conv2d(x, part, None, stride, kernel // 2, 1, channels) for part in _parts(x, weight)]
    return channels_last(_interleaved(made))


def input_gradient(grad: Tensor, x: Tensor, weight: Tensor, stride: int) -> Tensor:
    """Compute the gradient of x, (B, C, H, W).

    Args:
        grad: gradient of the output, channels last.
        x: map, (B, C, H, W), channels last.
        weight: filters, (C * m, 1, k, k).
        stride: vertical and horizontal stride.
    """
    parts = _parts(x, weight)
    first, *rest = (_aten(g, x, w, stride, 0) for g, w in zip(_taken_apart(grad, len(parts)), parts, strict=True))
    for more in rest:
        first += more
    return channels_last(first)


def weight_gradient(grad: Tensor, x: Tensor, weight: Tensor, stride: int) -> Tensor:
    """Compute the gradient of the weight, (C * m, 1, k, k).

    Args:
        grad: gradient of the output, channels last.
        x: map, (B, C, H, W), channels last.
        weight: filters, (C * m, 1, k, k).
        stride: vertical and horizontal stride.
    """
    kernel = weight.shape[-1]
    if x.device.type != "cpu" or stride > 1 and kernel > _WIDEST:
        return _aten(grad, x, weight, stride, 1)
    parts = _taken_apart(grad, weight.shape[0] // x.shape[1])
    return torch.stack([_weight_gradient(part, x, kernel, stride) for part in parts], 1).flatten(0, 1)


def _weight_gradient(grad: Tensor, x: Tensor, kernel: int, stride: int) -> Tensor:
    """Compute the gradient for one filter per channel, in strips of the kernel that oneDNN's fast routine supports."""
    batch, channels, height, width = x.shape
    # Taps that only see the padding have no gradient.
    reached = min(kernel, 2 * max(height, width) - 1) if stride == 1 else kernel
    padding = reached // 2
    # The fast routine does not support maps that are smaller than the kernel: pad them explicitly.
    rows = padding if min(height, width) <= reached else 0
    if reached <= _WIDEST and not rows:
        gradient = _strip(grad, x, (reached, reached), (padding, padding), stride)
    else:
        pixels, strips = x.permute(0, 2, 3, 1), []
        for left in range(0, reached, _WIDEST):
            columns = min(_WIDEST, reached - left)
            span = stride * (grad.shape[3] - 1) + columns
            start = left - padding
            begin, end = max(start, 0), min(start + span, width)
            strip = pixels.new_zeros((batch, height + 2 * rows, span, channels))
            strip[:, rows : rows + height, begin - start : end - start] = pixels[:, :, begin:end]
            inside = (0 if rows else padding, 0)
            strips.append(_strip(grad, strip.permute(0, 3, 1, 2), (reached, columns), inside, stride))
        gradient = torch.cat(strips, 3)
    border = (kernel - reached) // 2
    return F.pad(gradient, [border] * 4) if border else gradient


def _strip(grad: Tensor, x: Tensor, kernel: tuple[int, int], padding: tuple[int, int], stride: int) -> Tensor:
    channels = x.shape[1]
    like = x.new_empty((channels, 1, *kernel))
    return torch.ops.aten.convolution_backward(
        grad, x, like, None, [stride] * 2, padding, [1, 1], False, [0, 0], channels, [False, True, False]
    )[1]


def _aten(grad: Tensor, x: Tensor, weight: Tensor, stride: int, which: int) -> Tensor:
    """Compute PyTorch's gradient of x (0) or weight (1)."""
    wanted = [which == 0, which == 1, False]
    padding = [weight.shape[-1] // 2] * 2
    return torch.ops.aten.convolution_backward(
        grad, x, weight, None, [stride] * 2, padding, [1, 1], False, [0, 0], x.shape[1], wanted
    )[which]


def _parts(x: Tensor, weight: Tensor) -> list[Tensor]:
    """Return filters in groups with one filter per channel, if the library has no fast routine for several."""
    count = weight.shape[0] // x.shape[1] if x.device.type == "cpu" else 1
    return [weight[start::count].contiguous() for start in range(count)]


def _interleaved(parts: list[Tensor]) -> Tensor:
    """Join the maps of each filter, so that the filters of a channel are adjacent."""
    return parts[0] if len(parts) == 1 else F.channel_shuffle(torch.cat(parts, 1), len(parts))


def _taken_apart(x: Tensor, count: int) -> list[Tensor]:
    return [x] if count == 1 else [channels_last(x[:, start::count]) for start in range(count)]
