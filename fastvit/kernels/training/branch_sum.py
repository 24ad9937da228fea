"""The operator `fastvit::branch_sum`: batch norms over several maps, added up, as one affine combination of the maps.

A term of the sum is gain * (z - mean(z)) / sqrt(var(z) + eps) with z = factor * map: a batch norm without its shift,
of a map that a depthwise 1x1 convolution may have scaled. mean(z) and var(z) follow from those of the map, so the whole
sum is

    out = sum over maps of slope * map, + offset

with a slope a map and channel. Statistics take one pass over each map and the sum one over all; going back, the sums
over pixels take one pass and the gradients of all maps another. Nothing but the maps themselves is kept for that.
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
    """Normalize and add up.

    Args:
        maps: (B, C, H, W) each, of one shape.
        factor: (T, C), what a term multiplies its map with before the norm; terms of the first map come first.
        gain: (T, C), what it multiplies the normalized map with.
        shift: (C,), added to the sum.
        terms: how many of the T there are of each map.
        skip: index of the map that is also added as it is; -1 for none.
        eps: of all norms.
        gelu: end with GELU.
        group: name of the process group over whose images the statistics are; None for those of this process.

    Returns:
        The sum, channels last, in the widest dtype of the maps; mean and biased variance of the maps, (maps, C), in
        float32 at least; and how many pixels they are of, a number.
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
    """Gradients of `branch_sum`'s maps, one after the other, then of factor, gain and shift."""
    maps, grad = [channels_last(one) for one in maps], channels_last(grad)
    passes = passes_for(maps)
    with torch.cuda.device_of(grad):
        wide_factor, wide_gain = factor.to(mean), gain.to(mean)
        slopes, offset = _affine(mean, variance, wide_factor, wide_gain, shift.to(mean), terms, skip, eps)
        grad, gelu = passes.before_gelu(grad, maps, slopes, offset, gelu)
        products, total = passes.gradient_sums(grad, maps, mean, slopes, offset, gelu)
        # Parameters are each process's own (DDP averages them); the statistics are everybody's.
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
    """Who computes the passes over these maps."""
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
    """Mean, variance and number of pixels over all processes of a group; images may differ in size between them.

    Args:
        mean: (maps, C) of this process.
        variance: likewise, biased.
        x: one of its maps.
        group: by its name; None for this process alone.
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
    """The sum over the processes of a group; the values are overwritten."""
    if group is not None:
        torch.distributed.all_reduce(values, group=_processes(group))
    return values


# What follows is arithmetic on a value a channel. With r = (factor^2 var + eps)^(-1/2), the term of a map y is
# gain factor r (y - mean).


def _by_term(values: Tensor, terms: Sequence[int]) -> Tensor:
    """(maps, C) -> (T, C): each map's values for each of its terms."""
    return torch.cat([row.expand(count, -1) for row, count in zip(values, terms, strict=True)])


def _by_map(values: Tensor, terms: Sequence[int]) -> Tensor:
    """(T, C) -> (maps, C): the sum over the terms of each map."""
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
    """Slopes (maps, C) and offset (C,) of the sum."""
    inverse = (factor.square() * _by_term(variance, terms) + eps).rsqrt()
    slopes = _by_map(gain * factor * inverse, terms)
    offset = shift - (slopes * mean).sum(0)
    if skip >= 0:
        slopes[skip] += 1
    return slopes, offset


def _parameter_gradients(
    products: Tensor, variance: Tensor, factor: Tensor, gain: Tensor, terms: Sequence[int], eps: float
) -> tuple[Tensor, Tensor]:
    """Of factor and gain, from the sums of gradient * (map - mean): d(factor r) / d(factor) is eps r^3."""
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
    """What reaches a map through its own mean and variance, as own * map + constant, each (maps, C)."""
    inverse = (factor.square() * _by_term(variance, terms) + eps).rsqrt()
    # d loss / d var is half of this with the opposite sign, and d var / d map is 2 (map - mean) / count.
    own = -_by_map(gain * (factor * inverse) ** 3, terms) * products / count
    normed = slopes.clone()
    if skip >= 0:
        normed[skip] -= 1
    return own, -own * mean - normed * total / count


def group_name(group: Any = None) -> str:
    """By which the operator knows a process group, or that of all processes."""
    return cast(Any, group or torch.distributed.group.WORLD).group_name


def _processes(name: str) -> Any:
    """The group of a name."""
    from torch.distributed.distributed_c10d import _resolve_process_group

    return _resolve_process_group(cast(Any, name))
