"""Passes over the maps of `branch_sum` as Triton kernels; they compute the same as those in `passes_torch`.

A channels-last map is a matrix of pixels by channels. Each program has a tile of it, reads all maps of the sum there,
in any dtype, and computes in float32. Sums over pixels are computed in two steps, within tiles and then over tiles, so
that the same images always give the same bits.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from fastvit.kernels.training.dispatch import new_map

# Most maps that the kernels can add up: FastViT's blocks have one or two, and three with another kernel size.
MOST_MAPS = 3
_CHANNELS = 64
_PIXELS = 64
# Programs that share the pixels of a sum: enough to fill a GPU, few enough to be added up quickly.
_SHARES = 512


@triton.jit
def _cdf(x):
    """Compute the distribution function of the standard normal distribution."""
    return 0.5 * (1.0 + tl.erf(x * 0.7071067811865476))


@triton.jit
def _slope_of_gelu(x):
    return _cdf(x) + x * 0.3989422804014327 * tl.exp(-0.5 * x * x)


@triton.jit
def _load(pointer, at, mask):
    return tl.load(pointer + at, mask=mask, other=0.0).to(tl.float32)


@triton.jit
def _affine(a, b, c, at, mask, slopes, offset, column, inside, channels, MAPS: tl.constexpr):
    """Compute offset + the sum of slope * map, over a tile."""
    total = _load(offset, column, inside)[None, :] + _load(slopes, column, inside)[None, :] * _load(a, at, mask)
    if MAPS > 1:
        total += _load(slopes + channels, column, inside)[None, :] * _load(b, at, mask)
    if MAPS > 2:
        total += _load(slopes + 2 * channels, column, inside)[None, :] * _load(c, at, mask)
    return total


@triton.jit
def _moments(x, partial, pixels, channels, share, PIXELS: tl.constexpr, CHANNELS: tl.constexpr):
    """Sum x - x[0] and its square; without x[0], the squares would lose precision if the mean is large."""
    column = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    inside = column < channels
    origin = _load(x, column, inside)
    total = tl.zeros((PIXELS, CHANNELS), tl.float32)
    square = tl.zeros((PIXELS, CHANNELS), tl.float32)
    begin = tl.program_id(0) * share
    for start in range(begin, tl.minimum(begin + share, pixels), PIXELS):
        row = start + tl.arange(0, PIXELS)
        mask = (row < pixels)[:, None] & inside[None, :]
        value = _load(x, row.to(tl.int64)[:, None] * channels + column[None, :], mask)
        value = tl.where(mask, value - origin[None, :], 0.0)
        total += value
        square += value * value
    out = partial + tl.program_id(0) * 2 * channels + column
    tl.store(out, tl.sum(total, 0), mask=inside)
    tl.store(out + channels, tl.sum(square, 0), mask=inside)


@triton.jit
def _combine(
    out, a, b, c, slopes, offset, pixels, channels,
    MAPS: tl.constexpr, GELU: tl.constexpr, PIXELS: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0) * PIXELS + tl.arange(0, PIXELS)
    column = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    inside = column < channels
    mask = (row < pixels)[:, None] & inside[None, :]
    at = row.to(tl.int64)[:, None] * channels + column[None, :]
    total = _affine(a, b, c, at, mask, slopes, offset, column, inside, channels, MAPS)
    if GELU:
        total = total * _cdf(total)
    tl.store(out + at, total.to(out.dtype.element_ty), mask=mask)


@triton.jit
def _gradient_sums(
    grad, a, b, c, mean, slopes, offset, partial, pixels, channels, share,
    MAPS: tl.constexpr, GELU: tl.constexpr, PIXELS: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    column = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    inside = column < channels
    total = tl.zeros((PIXELS, CHANNELS), tl.float32)
    first = tl.zeros((PIXELS, CHANNELS), tl.float32)
    second = tl.zeros((PIXELS, CHANNELS), tl.float32)
    third = tl.zeros((PIXELS, CHANNELS), tl.float32)
    begin = tl.program_id(0) * share
    for start in range(begin, tl.minimum(begin + share, pixels), PIXELS):
        row = start + tl.arange(0, PIXELS)
        mask = (row < pixels)[:, None] & inside[None, :]
        at = row.to(tl.int64)[:, None] * channels + column[None, :]
        pull = _load(grad, at, mask)
        if GELU:
            pull *= _slope_of_gelu(_affine(a, b, c, at, mask, slopes, offset, column, inside, channels, MAPS))
        total += pull
        first += pull * (_load(a, at, mask) - _load(mean, column, inside)[None, :])
        if MAPS > 1:
            second += pull * (_load(b, at, mask) - _load(mean + channels, column, inside)[None, :])
        if MAPS > 2:
            third += pull * (_load(c, at, mask) - _load(mean + 2 * channels, column, inside)[None, :])
    out = partial + tl.program_id(0) * (MAPS + 1) * channels + column
    tl.store(out, tl.sum(first, 0), mask=inside)
    if MAPS > 1:
        tl.store(out + channels, tl.sum(second, 0), mask=inside)
    if MAPS > 2:
        tl.store(out + 2 * channels, tl.sum(third, 0), mask=inside)
    tl.store(out + MAPS * channels, tl.sum(total, 0), mask=inside)


@triton.jit
def _gradient_of(
    out, x, pull, at, mask, own, constant, slopes, column, inside, skipped
):  # fmt: skip
    value = _load(own + skipped, column, inside)[None, :] * _load(x, at, mask)
    value += (
        _load(constant + skipped, column, inside)[None, :] + _load(slopes + skipped, column, inside)[None, :] * pull
    )
    tl.store(out + at, value.to(out.dtype.element_ty), mask=mask)


@triton.jit
def _gradients(
    grad, a, b, c, grad_a, grad_b, grad_c, own, constant, slopes, offset, pixels, channels,
    MAPS: tl.constexpr, GELU: tl.constexpr, PIXELS: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0) * PIXELS + tl.arange(0, PIXELS)
    column = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    inside = column < channels
    mask = (row < pixels)[:, None] & inside[None, :]
    at = row.to(tl.int64)[:, None] * channels + column[None, :]
    pull = _load(grad, at, mask)
    if GELU:
        pull *= _slope_of_gelu(_affine(a, b, c, at, mask, slopes, offset, column, inside, channels, MAPS))
    _gradient_of(grad_a, a, pull, at, mask, own, constant, slopes, column, inside, 0)
    if MAPS > 1:
        _gradient_of(grad_b, b, pull, at, mask, own, constant, slopes, column, inside, channels)
    if MAPS > 2:
        _gradient_of(grad_c, c, pull, at, mask, own, constant, slopes, column, inside, 2 * channels)


def moments(maps: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Return mean and biased variance of each map, (maps, C), in float32."""
    means, variances = zip(*map(_moments_of, maps), strict=True)
    return torch.stack(means), torch.stack(variances)


def _moments_of(x: Tensor) -> tuple[Tensor, Tensor]:
    pixels, channels = _size(x)
    shares, share = _share(pixels)
    partial = x.new_empty((shares, 2, channels), dtype=torch.float32)
    blocks = triton.cdiv(channels, _CHANNELS)
    _moments[(shares, blocks)](x, partial, pixels, channels, share, PIXELS=_PIXELS, CHANNELS=_CHANNELS)
    total, square = (partial.sum(0) / pixels).unbind()
    return x[0, :, 0, 0].float() + total, (square - total.square()).clamp_(min=0.0)


def combine(maps: Sequence[Tensor], slopes: Tensor, offset: Tensor, gelu: bool, dtype: torch.dtype) -> Tensor:
    """Return sum(slope * map) + offset, optionally followed by GELU.

    Args:
        maps: maps to add up, at most MOST_MAPS.
        slopes: slope per map and channel, (maps, C).
        offset: offset per channel, (C,).
        gelu: whether GELU follows.
        dtype: dtype of the result.
    """
    out = new_map(maps[0], maps[0].shape, dtype)
    pixels, channels = _size(out)
    _combine[_tiles(pixels, channels)](
        out, *_three(maps), slopes, offset, pixels, channels,
        MAPS=len(maps), GELU=gelu, PIXELS=_PIXELS, CHANNELS=_CHANNELS,
    )  # fmt: skip
    return out


def before_gelu(
    grad: Tensor, maps: Sequence[Tensor], slopes: Tensor, offset: Tensor, gelu: bool
) -> tuple[Tensor, bool]:
    """Return the gradient and `gelu` unchanged: the kernels below apply the gradient of GELU while they read the maps.

    Args:
        grad: gradient of the output.
        maps: maps that were added up.
        slopes: slope per map and channel, (maps, C).
        offset: offset per channel, (C,).
        gelu: whether GELU followed the sum.
    """
    return grad, gelu


def gradient_sums(
    grad: Tensor, maps: Sequence[Tensor], mean: Tensor, slopes: Tensor, offset: Tensor, gelu: bool
) -> tuple[Tensor, Tensor]:
    """Return the sums over pixels of gradient * (map - mean), (maps, C), and of the gradient, (C,).

    Args:
        grad: gradient of the output.
        maps: maps that were added up.
        mean: means of the maps, (maps, C).
        slopes: slope per map and channel, (maps, C).
        offset: offset per channel, (C,).
        gelu: whether to apply the gradient of GELU.
    """
    pixels, channels = _size(grad)
    shares, share = _share(pixels)
    partial = grad.new_empty((shares, len(maps) + 1, channels), dtype=torch.float32)
    _gradient_sums[(shares, triton.cdiv(channels, _CHANNELS))](
        grad, *_three(maps), mean, slopes, offset, partial, pixels, channels, share,
        MAPS=len(maps), GELU=gelu, PIXELS=_PIXELS, CHANNELS=_CHANNELS,
    )  # fmt: skip
    sums = partial.sum(0)
    return sums[:-1].clone(), sums[-1].clone()


def gradients(
    grad: Tensor,
    maps: Sequence[Tensor],
    own: Tensor,
    constant: Tensor,
    slopes: Tensor,
    offset: Tensor,
    gelu: bool,
) -> list[Tensor]:
    """Return the gradient of each map, slope * gradient + own * map + constant, in the dtype of the map.

    Args:
        grad: gradient of the output.
        maps: maps that were added up.
        own: factor of the map itself, (maps, C).
        constant: constant part, (maps, C).
        slopes: slope per map and channel, (maps, C).
        offset: offset per channel, (C,).
        gelu: whether to apply the gradient of GELU.
    """
    made = [new_map(one, one.shape) for one in maps]
    pixels, channels = _size(grad)
    _gradients[_tiles(pixels, channels)](
        grad, *_three(maps), *_three(made), own, constant, slopes, offset, pixels, channels,
        MAPS=len(maps), GELU=gelu, PIXELS=_PIXELS, CHANNELS=_CHANNELS,
    )  # fmt: skip
    return made


def _size(x: Tensor) -> tuple[int, int]:
    """Return the numbers of pixels and channels."""
    return x.shape[0] * x.shape[2] * x.shape[3], x.shape[1]


def _share(pixels: int) -> tuple[int, int]:
    """Return the number of programs that share the pixels, and the pixels of each."""
    share = triton.cdiv(triton.cdiv(pixels, _SHARES), _PIXELS) * _PIXELS
    return triton.cdiv(pixels, share), share


def _tiles(pixels: int, channels: int) -> tuple[int, int]:
    return triton.cdiv(pixels, _PIXELS), triton.cdiv(channels, _CHANNELS)


def _three(maps: Sequence[Tensor]) -> list[Tensor]:
    """Return as many maps as the kernels take; the additional ones are not read."""
    return [*maps, *[maps[0]] * (MOST_MAPS - len(maps))]
