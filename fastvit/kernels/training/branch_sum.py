"""The operator `fastvit::branch_sum`: a sum of batch norms over several maps, as one affine combination of the maps.

A term of the sum is gain * (z - mean(z)) / sqrt(var(z) + eps) with z = factor * map. This is a batch norm without its
shift, of a map that a depthwise 1x1 convolution may have scaled. mean(z) and var(z) follow from those of the map, so
the sum is

    out = sum over maps of slope * map, + offset

with a slope per map and channel. The forward pass reads each map once for the statistics and once for the sum. The
backward pass reads the maps once for the sums over pixels and once for the gradients. Only the maps are kept for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import ModuleType
from typing import Any, cast

import torch
import torch.distributed
from torch import Tensor

from fastvit.kernels.training import passes_torch
from fastvit.kernels.training.dispatch import channels_last, new_map, use_triton
from fastvit.kernels.training.operators import operator


@operator("branch_sum")
def branch_sum(
    maps: Sequence[Tensor],
    factor: Tensor,
    gain: Tensor,
    shift: Tensor,
    terms: Sequence[int],
    skip: int,
    eps: float,
    gelu: bool,
    group: str | None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Normalize maps and add them up.

    Args:
        maps: maps of one shape, (B, C, H, W).
        factor: factor of each term before its norm, (T, C); terms of the first map come first.
        gain: factor of each term after its norm, (T, C).
        shift: offset of the sum, (C,).
        terms: number of terms of each map; their sum is T.
        skip: index of the map that is also added without a norm; -1 for none.
        eps: epsilon of all norms.
        gelu: whether GELU follows.
        group: name of the process group that shares batch statistics; None for this process only.

    Returns:
        The sum, channels last, in the widest dtype of the maps; mean and biased variance of the maps, (maps, C), in
        float32 at least; and the number of pixels that they are taken over, a scalar tensor.
    """
    maps = [channels_last(one) for one in maps]
    passes = passes_for(maps)
    with torch.cuda.device_of(maps[0]):
        mean, variance = passes.moments(maps)
        mean, variance, count = shared_statistics(mean, variance, maps[0], group)
        slopes, offset = _affine(mean, variance, factor.to(mean), gain.to(mean), shift.to(mean), terms, skip, eps)
        out = passes.combine(maps, slopes, offset, gelu, _widest(maps))
    return out, mean, variance, count


@branch_sum.register_fake
def _(
    maps: Sequence[Tensor],
    factor: Tensor,
    gain: Tensor,
    shift: Tensor,
    terms: Sequence[int],
    skip: int,
    eps: float,
    gelu: bool,
    group: str | None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    first, dtype = maps[0], torch.promote_types(_widest(maps), torch.float32)
    statistics = [first.new_empty((len(maps), first.shape[1]), dtype=dtype) for _ in range(2)]
    out = new_map(first, first.shape, _widest(maps))
    return out, statistics[0], statistics[1], first.new_empty((), dtype=dtype)


@operator("branch_sum_backward")
def branch_sum_backward(
    grad: Tensor,
    maps: Sequence[Tensor],
    mean: Tensor,
    variance: Tensor,
    count: Tensor,
    factor: Tensor,
    gain: Tensor,
    shift: Tensor,
    terms: Sequence[int],
    skip: int,
    eps: float,
    gelu: bool,
    group: str | None,
) -> list[Tensor]:
    """Compute the gradients of `branch_sum`.

    Args:
        grad: gradient of the sum, (B, C, H, W).
        maps: maps that were added up.
        mean: means that `branch_sum` returned.
        variance: variances that `branch_sum` returned.
        count: number of pixels that `branch_sum` returned.
        factor: factor of each term before its norm, (T, C).
        gain: factor of each term after its norm, (T, C).
        shift: offset of the sum, (C,).
        terms: number of terms of each map.
        skip: index of the map that is also added without a norm; -1 for none.
        eps: epsilon of all norms.
        gelu: whether GELU follows.
        group: name of the process group that shares batch statistics; None for this process only.

    Returns:
        The gradients of the maps, in their order, then of factor, gain and shift.
    """
    maps, grad = [channels_last(one) for one in maps], channels_last(grad)
    passes = passes_for(maps)
    with torch.cuda.device_of(grad):
        wide_factor, wide_gain = factor.to(mean), gain.to(mean)
        slopes, offset = _affine(mean, variance, wide_factor, wide_gain, shift.to(mean), terms, skip, eps)
        grad, gelu = passes.before_gelu(grad, maps, slopes, offset, gelu)
        products, total = passes.gradient_sums(grad, maps, mean, slopes, offset, gelu)
        # Gradients of parameters are per process (DDP averages them); the statistics are shared.
        grads = _parameter_gradients(products, variance, wide_factor, wide_gain, terms, eps)
        sums = summed_over(torch.cat([products, total[None]]), group)
        own, constant = _through_statistics(
            sums[:-1], sums[-1], mean, variance, count, wide_factor, wide_gain, slopes, terms, skip, eps
        )
        made = passes.gradients(grad, maps, own, constant, slopes, offset, gelu)
    parameters = zip((*grads, total), (factor, gain, shift), strict=True)
    return [*made, *(one.to(like.dtype) for one, like in parameters)]


@branch_sum_backward.register_fake
def _(
    grad: Tensor,
    maps: Sequence[Tensor],
    mean: Tensor,
    variance: Tensor,
    count: Tensor,
    factor: Tensor,
    gain: Tensor,
    shift: Tensor,
    terms: Sequence[int],
    skip: int,
    eps: float,
    gelu: bool,
    group: str | None,
) -> list[Tensor]:
    return [*(new_map(one, one.shape) for one in maps), *(torch.empty_like(one) for one in (factor, gain, shift))]


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    maps, factor, gain, shift, *ctx.options = inputs
    _, mean, variance, count = output
    ctx.mark_non_differentiable(mean, variance, count)
    ctx.maps = len(maps)
    ctx.save_for_backward(*maps, mean, variance, count, factor, gain, shift)


def _back(ctx: Any, grad: Tensor, *_: Tensor) -> tuple[Any, ...]:
    saved = ctx.saved_tensors
    maps, rest = list(saved[: ctx.maps]), saved[ctx.maps :]
    made = branch_sum_backward(grad, maps, *rest, *ctx.options)
    return made[: ctx.maps], *made[ctx.maps :], *[None] * len(ctx.options)


branch_sum.register_autograd(_back, setup_context=_keep)


def passes_for(maps: Sequence[Tensor]) -> ModuleType:
    """Return the module that computes the passes over these maps: `passes_torch` or `passes_triton`."""
    if not use_triton(*maps):
        return passes_torch
    from fastvit.kernels.training import passes_triton

    return passes_triton if len(maps) <= passes_triton.MOST_MAPS else passes_torch


def _widest(maps: Sequence[Tensor]) -> torch.dtype:
    dtype = maps[0].dtype
    for one in maps[1:]:
        dtype = torch.promote_types(dtype, one.dtype)
    return dtype


def shared_statistics(mean: Tensor, variance: Tensor, x: Tensor, group: str | None) -> tuple[Tensor, Tensor, Tensor]:
    """Return mean, variance and number of pixels over all processes of a group; their images may differ in size.

    Args:
        mean: means of the maps of this process, (maps, C).
        variance: biased variances of the maps of this process, (maps, C).
        x: one of the maps of this process, (B, C, H, W).
        group: name of the process group; None for this process only.
    """
    pixels = x.shape[0] * x.shape[2] * x.shape[3]
    count = mean.new_full((), pixels)
    if group is None:
        return mean, variance, count
    processes = _processes(group)
    mine = torch.cat([mean.flatten(), variance.flatten(), count[None]])
    everyones = [torch.empty_like(mine) for _ in range(processes.size())]
    torch.distributed.all_gather(everyones, mine, group=processes)
    gathered = torch.stack(everyones)
    counts = gathered[:, -1]
    means, variances = gathered[:, :-1].unflatten(1, (2, *mean.shape)).unbind(1)
    shares = (counts / counts.sum()).view(-1, 1, 1)
    mean = (shares * means).sum(0)
    return mean, (shares * (variances + (means - mean).square())).sum(0), counts.sum()


def summed_over(values: Tensor, group: str | None) -> Tensor:
    """Return the sum of the values over the processes of a group; the values are overwritten."""
    if group is not None:
        torch.distributed.all_reduce(values, group=_processes(group))
    return values


# The functions below compute with one value per channel. With r = (factor^2 var + eps)^(-1/2), the term of a map y is
# gain factor r (y - mean).


def _by_term(values: Tensor, terms: Sequence[int]) -> Tensor:
    """Repeat the values of each map for each of its terms: (maps, C) -> (T, C)."""
    return torch.cat([row.expand(count, -1) for row, count in zip(values, terms, strict=True)])


def _by_map(values: Tensor, terms: Sequence[int]) -> Tensor:
    """Sum the values over the terms of each map: (T, C) -> (maps, C)."""
    return torch.stack([rows.sum(0) for rows in values.split(list(terms))])


def _affine(
    mean: Tensor,
    variance: Tensor,
    factor: Tensor,
    gain: Tensor,
    shift: Tensor,
    terms: Sequence[int],
    skip: int,
    eps: float,
) -> tuple[Tensor, Tensor]:
    """Return the slopes (maps, C) and the offset (C,) of the sum."""
    inverse = (factor.square() * _by_term(variance, terms) + eps).rsqrt()
    slopes = _by_map(gain * factor * inverse, terms)
    offset = shift - (slopes * mean).sum(0)
    if skip >= 0:
        slopes[skip] += 1
    return slopes, offset


def _parameter_gradients(
    products: Tensor, variance: Tensor, factor: Tensor, gain: Tensor, terms: Sequence[int], eps: float
) -> tuple[Tensor, Tensor]:
    """Return the gradients of factor and gain, from the sums of gradient * (map - mean).

    d(factor r) / d(factor) is eps r^3.
    """
    inverse = (factor.square() * _by_term(variance, terms) + eps).rsqrt()
    pulled = _by_term(products, terms) * inverse
    return gain * eps * inverse.square() * pulled, factor * pulled


def _through_statistics(
    products: Tensor,
    total: Tensor,
    mean: Tensor,
    variance: Tensor,
    count: Tensor,
    factor: Tensor,
    gain: Tensor,
    slopes: Tensor,
    terms: Sequence[int],
    skip: int,
    eps: float,
) -> tuple[Tensor, Tensor]:
    """Return own and constant, each (maps, C): own * map + constant is the gradient through mean and variance."""
    inverse = (factor.square() * _by_term(variance, terms) + eps).rsqrt()
    # d loss / d var is half of this with the opposite sign, and d var / d map is 2 (map - mean) / count.
    own = -_by_map(gain * (factor * inverse) ** 3, terms) * products / count
    normed = slopes.clone()
    if skip >= 0:
        normed[skip] -= 1
    return own, -own * mean - normed * total / count


def group_name(group: Any = None) -> str:
    """Return the name of a process group for the operators; by default the group of all processes."""
    return cast(Any, group or torch.distributed.group.WORLD).group_name


def _processes(name: str) -> Any:
    """Return the process group of a name."""
    from torch.distributed.distributed_c10d import _resolve_process_group

    return _resolve_process_group(cast(Any, name))
