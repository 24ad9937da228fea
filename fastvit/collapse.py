"""How a model is computed while it is trained: branch by branch, or with each block's norms collapsed into one sum.

In training every branch of a RepConv or RepMixer ends in a batch norm, and their statistics follow from those of the
block's input and of its convolutions' outputs. The collapsed form takes just these, and makes each block one affine
combination (`fastvit.kernels.training`): less time and less memory, the same function. The plain form is the
definition; parameters, buffers, state dicts and files are the same in both, and in eval mode nothing differs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import singledispatch
from typing import Literal, TypeVar, cast, get_args

import torch
import torch.distributed
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from fastvit.errors import UserError
from fastvit.kernels.training.branch_sum import branch_sum, group_name
from fastvit.kernels.training.depthwise import depthwise_conv
from fastvit.kernels.training.subsample import subsample
from fastvit.model.layers import ConvNorm, RepConv
from fastvit.model.mixers import RepMixer

TrainForm = Literal["plain", "collapsed", "auto"]
Model = TypeVar("Model", bound=nn.Module)


def set_train_form(model: Model, form: TrainForm) -> Model:
    """Choose how a model is computed in training, in place.

    Modules change their class, as they do for synchronised norms: they keep their names, parameters, buffers and
    hooks, and `fastvit.fuse`, `fastvit.form` and `fastvit.save` see no difference. Choose before torch.compile.

    Args:
        model: any module that contains FastViT's; what is not FastViT's stays as it is.
        form: "plain", branch by branch; "collapsed"; or "auto", whichever is known to be faster where the images are.

    Returns:
        The same model.

    Raises:
        UserError: there is no such form.
    """
    if form not in get_args(TrainForm):
        raise UserError(f"train_form must be one of {', '.join(get_args(TrainForm))}, got {form!r}")
    for module in model.modules():
        for kinds in _KINDS:
            if type(module) in kinds.values():
                module.__class__ = kinds[form]  # all three have the same attributes
    return model


def train_form(model: nn.Module) -> TrainForm:
    """How a model is computed in training, read off its modules; "plain" too where there is nothing to choose."""
    for module in model.modules():
        for kinds in _KINDS:
            for form, kind in kinds.items():
                if type(module) is kind:
                    return form
    return "plain"


class CollapsedConvNorm(ConvNorm):
    """`ConvNorm` whose depthwise convolution goes back fast. A single norm has nothing to collapse."""

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(_convolved(self.conv, x)) if self.training else super().forward(x)


class CollapsedRepConv(RepConv):
    """`RepConv` as one combination of its input and its convolutions' outputs."""

    def forward(self, x: Tensor) -> Tensor:
        terms = _terms(self, x)
        return _summed(terms) if _collapsible(terms) else super().forward(x)


class CollapsedRepMixer(RepMixer):
    """`RepMixer` as one combination of its input and its convolution's output."""

    def forward(self, x: Tensor) -> Tensor:
        scale = self.layer_scale.gamma.flatten()
        terms = [term.scaled(scale) for term in _terms(self.mixer, x)]
        terms.append(_Term(x, cast(_BatchNorm, self.norm)).scaled(-scale))
        return _summed(terms, skip=x) if _collapsible(terms) else super().forward(x)


class AutoConvNorm(CollapsedConvNorm):
    """`CollapsedConvNorm` where that is faster."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) if collapsed_is_faster(x) else ConvNorm.forward(self, x)


class AutoRepConv(CollapsedRepConv):
    """`CollapsedRepConv` where that is faster."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) if collapsed_is_faster(x) else RepConv.forward(self, x)


class AutoRepMixer(CollapsedRepMixer):
    """`CollapsedRepMixer` where that is faster."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) if collapsed_is_faster(x) else RepMixer.forward(self, x)


_KINDS: tuple[dict[TrainForm, type[nn.Module]], ...] = (
    {"plain": ConvNorm, "collapsed": CollapsedConvNorm, "auto": AutoConvNorm},
    {"plain": RepConv, "collapsed": CollapsedRepConv, "auto": AutoRepConv},
    {"plain": RepMixer, "collapsed": CollapsedRepMixer, "auto": AutoRepMixer},
)


def collapsed_is_faster(x: Tensor) -> bool:
    """What "auto" goes by: the collapsed form was measured to be faster on CPUs; GPUs have yet to be measured."""
    return x.device.type == "cpu"


@singledispatch
def shared_over(norm: nn.Module) -> str | None:
    """The process group over whose images a norm takes its statistics, by name; None for this process alone."""
    return None


@shared_over.register
def _(norm: nn.SyncBatchNorm) -> str | None:
    distributed = torch.distributed.is_available() and torch.distributed.is_initialized()
    if not distributed or torch.distributed.get_world_size(norm.process_group) == 1:
        return None
    return group_name(norm.process_group)


@dataclass(frozen=True)
class _Term:
    """norm(factor * map) with its shift, times gain."""

    map: Tensor
    norm: _BatchNorm
    factor: Tensor | None = None
    gain: Tensor | None = None

    def scaled(self, gain: Tensor) -> _Term:
        return _Term(self.map, self.norm, self.factor, gain)


def _terms(block: RepConv, x: Tensor) -> list[_Term]:
    """What a RepConv adds up."""
    terms = []
    for branch in cast(Sequence[ConvNorm], block.branches):
        conv, norm = branch.conv, cast(_BatchNorm, branch.norm)
        if conv.kernel_size == (1, 1) and conv.groups == conv.in_channels == conv.out_channels:
            stride = conv.stride[0]
            seen = subsample(x, stride) if stride > 1 else x
            terms.append(_Term(seen, norm, conv.weight.flatten()))
        else:
            terms.append(_Term(_convolved(conv, x), norm))
    return terms if block.identity is None else [*terms, _Term(x, block.identity)]


def _convolved(conv: nn.Conv2d, x: Tensor) -> Tensor:
    if conv.groups != conv.in_channels or conv.groups == 1 or conv.bias is not None:
        return conv(x)
    weight, device = conv.weight, x.device.type
    if torch.is_autocast_enabled(device):
        dtype = torch.get_autocast_dtype(device)
        x, weight = x.to(dtype), weight.to(dtype)
    return depthwise_conv(x, weight, conv.stride[0])


def _collapsible(terms: Sequence[_Term]) -> bool:
    """Whether the norms are of batches and alike: others, frozen ones among them, keep to the plain form."""
    norms = [term.norm for term in terms]
    return (
        all(isinstance(norm, _BatchNorm) and norm.training and norm.affine for norm in norms)
        and len({norm.eps for norm in norms}) == 1
        and len({shared_over(norm) for norm in norms}) == 1
    )


def _summed(terms: Sequence[_Term], skip: Tensor | None = None) -> Tensor:
    maps: list[Tensor] = []
    for term in terms:
        if not any(term.map is one for one in maps):
            maps.append(term.map)
    by_map = [[term for term in terms if term.map is one] for one in maps]
    ordered = [term for some in by_map for term in some]
    norms, group = [term.norm for term in ordered], shared_over(terms[0].norm)
    if group is None and maps[0][:, 0].numel() == 1:
        raise ValueError(f"batch norm needs more than one pixel a channel in training, got {tuple(maps[0].shape)}")

    one = torch.ones_like(norms[0].weight)
    gains = [one if term.gain is None else term.gain for term in ordered]
    factor = torch.stack([one if term.factor is None else term.factor for term in ordered])
    gain = torch.stack(gains) * torch.stack([norm.weight for norm in norms])
    shift = (torch.stack(gains) * torch.stack([norm.bias for norm in norms])).sum(0)
    index = next((i for i, one in enumerate(maps) if one is skip), -1)
    counts = [len(some) for some in by_map]
    out, mean, variance, count = branch_sum(maps, factor, gain, shift, counts, index, norms[0].eps, False, group)
    _track(ordered, factor.detach(), mean, variance, count, counts)
    return out


def _track(
    terms: Sequence[_Term], factor: Tensor, mean: Tensor, variance: Tensor, count: Tensor, counts: Sequence[int]
) -> None:
    """Let each norm count the batch: its running mean and unbiased variance, as torch's own does."""
    unbiased = variance * (count / (count - 1))
    rows = [(mean[i], unbiased[i]) for i, times in enumerate(counts) for _ in range(times)]
    for term, scale, (center, spread) in zip(terms, factor, rows, strict=True):
        norm = term.norm
        if norm.running_mean is None or norm.running_var is None:
            continue
        if norm.num_batches_tracked is not None:
            norm.num_batches_tracked.add_(1)
        if term.factor is not None:
            center, spread = center * scale, spread * scale.square()
        for running, seen in ((norm.running_mean, center), (norm.running_var, spread)):
            seen = seen.to(running.dtype)
            if norm.momentum is not None:
                running.lerp_(seen, norm.momentum)
            elif norm.num_batches_tracked is not None:  # a plain average over all batches
                running.lerp_(seen, norm.num_batches_tracked.to(running.dtype).reciprocal())
