"""Depthwise convolution as Triton kernels, for channels-last maps; accumulates in float32.

A program has a tile of pixels by channels; pixels are in memory order over all images. The forward pass and the input
gradient loop over the taps of the kernel: neighboring taps read the same lines, which stay in the cache. The weight
gradient has a program for each row of the kernel and share of the pixels, with sums for all taps of that row. The sums
of the shares are added afterwards, always in the same order.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from fastvit.kernels.training.dispatch import new_map

_CHANNELS = 64
_PIXELS = 32
# Tile of the weight gradient, which also has the taps of a row.
_ROW_PIXELS = 16
_ROW_CHANNELS = 32
_SHARES = 256


@triton.jit
def _place(pixel, height, width):
    """Return image, row and column of a pixel."""
    return pixel // (height * width), pixel // width % height, pixel % width


@triton.jit
def _forward(
    x, weight, out, pixels, channels, height, width, out_height, out_width,
    FILTERS: tl.constexpr, K: tl.constexpr, STRIDE: tl.constexpr, PIXELS: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    pixel = tl.program_id(0) * PIXELS + tl.arange(0, PIXELS)
    column = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    outs = channels * FILTERS
    mask = (pixel < pixels)[:, None] & (column < outs)[None, :]
    image, row, left = _place(pixel, out_height, out_width)
    total = tl.zeros((PIXELS, CHANNELS), tl.float32)
    for i in range(K):  # not unrolled: 49 taps would take half a minute to compile
        for j in tl.static_range(K):
            h = row * STRIDE + i - K // 2
            w = left * STRIDE + j - K // 2
            seen = (h >= 0) & (h < height) & (w >= 0) & (w < width)
            at = ((image.to(tl.int64) * height + h) * width + w)[:, None] * channels + (column // FILTERS)[None, :]
            value = tl.load(x + at, mask=mask & seen[:, None], other=0.0).to(tl.float32)
            tap = tl.load(weight + (i * K + j) * outs + column, mask=column < outs, other=0.0).to(tl.float32)
            total += value * tap[None, :]
    tl.store(out + pixel.to(tl.int64)[:, None] * outs + column[None, :], total.to(out.dtype.element_ty), mask=mask)


@triton.jit
def _input_gradient(
    grad, weight, out, pixels, channels, height, width, out_height, out_width,
    FILTERS: tl.constexpr, K: tl.constexpr, STRIDE: tl.constexpr, PIXELS: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    pixel = tl.program_id(0) * PIXELS + tl.arange(0, PIXELS)
    column = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    outs = channels * FILTERS
    mask = (pixel < pixels)[:, None] & (column < channels)[None, :]
    image, row, left = _place(pixel, height, width)
    total = tl.zeros((PIXELS, CHANNELS), tl.float32)
    for i in range(K):
        for j in tl.static_range(K):
            # The pixel is tap (i, j) of the output at (h, w) / stride, if that output exists.
            h = row + K // 2 - i
            w = left + K // 2 - j
            seen = (h >= 0) & (h % STRIDE == 0) & (h // STRIDE < out_height)
            seen = seen & (w >= 0) & (w % STRIDE == 0) & (w // STRIDE < out_width)
            place = (image.to(tl.int64) * out_height + h // STRIDE) * out_width + w // STRIDE
            for f in tl.static_range(FILTERS):
                at = place[:, None] * outs + (column * FILTERS + f)[None, :]
                value = tl.load(grad + at, mask=mask & seen[:, None], other=0.0).to(tl.float32)
                tap = tl.load(weight + (i * K + j) * outs + column * FILTERS + f, mask=column < channels, other=0.0).to(
                    tl.float32
                )
                total += value * tap[None, :]
    tl.store(out + pixel.to(tl.int64)[:, None] * channels + column[None, :], total.to(out.dtype.element_ty), mask=mask)


@triton.jit
def _weight_gradient(
    grad, x, partial, pixels, share, channels, height, width, out_height, out_width,
    FILTERS: tl.constexpr, K: tl.constexpr, STRIDE: tl.constexpr, TAPS: tl.constexpr,
    PIXELS: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    column = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    outs = channels * FILTERS
    inside = column < outs
    i = tl.program_id(2)
    tap = tl.arange(0, TAPS)
    total = tl.zeros((PIXELS, TAPS, CHANNELS), tl.float32)
    begin = tl.program_id(0) * share
    for start in range(begin, tl.minimum(begin + share, pixels), PIXELS):
        pixel = start + tl.arange(0, PIXELS)
        image, row, left = _place(pixel, out_height, out_width)
        real = pixel < pixels
        at = pixel.to(tl.int64)[:, None] * outs + column[None, :]
        pull = tl.load(grad + at, mask=real[:, None] & inside[None, :], other=0.0).to(tl.float32)
        h = row * STRIDE + i - K // 2
        w = left[:, None] * STRIDE + tap[None, :] - K // 2
        seen = (real & (h >= 0) & (h < height))[:, None] & (w >= 0) & (w < width) & (tap < K)[None, :]
        place = (image.to(tl.int64) * height + h)[:, None] * width + w
        at = place[:, :, None] * channels + (column // FILTERS)[None, None, :]
        value = tl.load(x + at, mask=seen[:, :, None] & inside[None, None, :], other=0.0).to(tl.float32)
        total += value * pull[:, None, :]
    out = partial + ((tl.program_id(0) * K + i) * TAPS + tap)[:, None].to(tl.int64) * outs + column[None, :]
    tl.store(out, tl.sum(total, 0), mask=inside[None, :])


def forward(x: Tensor, weight: Tensor, stride: int) -> Tensor:
    """Compute `fastvit.kernels.training.depthwise.depthwise_conv`.

    Args:
        x: map, (B, C, H, W), channels last.
        weight: filters, (C * m, 1, k, k).
        stride: vertical and horizontal stride.
    """
    batch, channels, height, width = x.shape
    outs, kernel = weight.shape[0], weight.shape[-1]
    out = new_map(x, (batch, outs, (height - 1) // stride + 1, (width - 1) // stride + 1))
    pixels = batch * out.shape[2] * out.shape[3]
    _forward[_tiles(pixels, outs)](
        x, _by_tap(weight), out, pixels, channels, height, width, out.shape[2], out.shape[3],
        FILTERS=outs // channels, K=kernel, STRIDE=stride, PIXELS=_PIXELS, CHANNELS=_CHANNELS,
    )  # fmt: skip
    return out


def input_gradient(grad: Tensor, x: Tensor, weight: Tensor, stride: int) -> Tensor:
    """Compute the gradient of x, (B, C, H, W).

    Args:
        grad: gradient of the output, channels last.
        x: map, (B, C, H, W), channels last.
        weight: filters, (C * m, 1, k, k).
        stride: vertical and horizontal stride.
    """
    batch, channels, height, width = x.shape
    outs, kernel = weight.shape[0], weight.shape[-1]
    out = new_map(x, x.shape)
    pixels = batch * height * width
    _input_gradient[_tiles(pixels, channels)](
        grad, _by_tap(weight), out, pixels, channels, height, width, grad.shape[2], grad.shape[3],
        FILTERS=outs // channels, K=kernel, STRIDE=stride, PIXELS=_PIXELS, CHANNELS=_CHANNELS,
    )  # fmt: skip
    return out


def weight_gradient(grad: Tensor, x: Tensor, weight: Tensor, stride: int) -> Tensor:
    """Compute the gradient of the weight, (C * m, 1, k, k).

    Args:
        grad: gradient of the output, channels last.
        x: map, (B, C, H, W), channels last.
        weight: filters, (C * m, 1, k, k).
        stride: vertical and horizontal stride.
    """
    channels, height, width = x.shape[1:]
    outs, kernel = weight.shape[0], weight.shape[-1]
    pixels, taps = grad.shape[0] * grad.shape[2] * grad.shape[3], triton.next_power_of_2(kernel)
    share = triton.cdiv(triton.cdiv(pixels, _SHARES), _ROW_PIXELS) * _ROW_PIXELS
    shares = triton.cdiv(pixels, share)
    partial = x.new_empty((shares, kernel, taps, outs), dtype=torch.float32)
    _weight_gradient[(shares, triton.cdiv(outs, _ROW_CHANNELS), kernel)](
        grad, x, partial, pixels, share, channels, height, width, grad.shape[2], grad.shape[3],
        FILTERS=outs // channels, K=kernel, STRIDE=stride, TAPS=taps, PIXELS=_ROW_PIXELS, CHANNELS=_ROW_CHANNELS,
    )  # fmt: skip
    return partial.sum(0)[:, :kernel].permute(2, 0, 1)[:, None].to(weight.dtype).contiguous()


def _tiles(pixels: int, channels: int) -> tuple[int, int]:
    return triton.cdiv(pixels, _PIXELS), triton.cdiv(channels, _CHANNELS)


def _by_tap(weight: Tensor) -> Tensor:
    """Transpose the weight, so that neighboring channels are adjacent: (C * m, 1, k, k) -> (k * k, C * m)."""
    return weight.flatten(1).t().contiguous()
