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

from fastvit.errors import unknown_name
from fastvit.kernels.training.branch_sum import branch_sum, group_name
from fastvit.kernels.training.depthwise import depthwise_conv
from fastvit.kernels.training.pointwise import norm_pointwise, pointwise
from fastvit.kernels.training.subsample import subsample
from fastvit.model.blocks import ConvFFN, MobileOne
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
        raise unknown_name("train form", form, get_args(TrainForm))
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


class CollapsedConvFFN(ConvFFN):
    """`ConvFFN` that never makes the normalised map: the norm is in the weights of the 1x1 convolution after it."""

    def forward(self, x: Tensor) -> Tensor:
        spatial = self.conv
        if not isinstance(spatial, ConvNorm):
            return super().forward(x)
        norm = spatial.norm
        if not _collapsible([norm]):
            return super().forward(x)
        group = shared_over(norm)
        y = _convolved(spatial.conv, x)
        _refuse_one_pixel(y, group)
        hidden, mean, variance, count = norm_pointwise(
            y, self.fc1.weight, self.fc1.bias, norm.weight, norm.bias, norm.eps, group
        )
        _track(norm, mean[0], variance[0], count)
        hidden = self.act(hidden)
        return pointwise(*_in_one_dtype(hidden, self.fc2.weight, self.fc2.bias))


class CollapsedRepConv(RepConv):
    """`RepConv` as one combination of its input and its convolutions' outputs."""

    def forward(self, x: Tensor) -> Tensor:
        return _summed(_terms(self, x)) if _collapsible(_norms(self)) else super().forward(x)


class CollapsedMobileOne(MobileOne):
    """`MobileOne` with GELU in the same pass; what goes into GELU is not kept."""

    def forward(self, x: Tensor) -> Tensor:
        block = self.conv
        if isinstance(self.se, nn.Identity) and isinstance(block, RepConv) and _collapsible(_norms(block)):
            return _summed(_terms(block, x), gelu=True)
        return super().forward(x)


class CollapsedRepMixer(RepMixer):
    """`RepMixer` as one combination of its input and its convolution's output."""

    def forward(self, x: Tensor) -> Tensor:
        if not _collapsible([*_norms(self.mixer), self.norm]):
            return super().forward(x)
        scale = self.layer_scale.gamma.flatten()
        terms = [*_terms(self.mixer, x), _Term(x, self.norm, sign=-1.0)]
        return _summed(terms, scale, skip=x)


class AutoConvNorm(CollapsedConvNorm):
    """`CollapsedConvNorm` where that is faster."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) if collapsed_is_faster(x) else ConvNorm.forward(self, x)


class AutoConvFFN(CollapsedConvFFN):
    """`CollapsedConvFFN` where that is faster."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) if collapsed_is_faster(x) else ConvFFN.forward(self, x)


class AutoRepConv(CollapsedRepConv):
    """`CollapsedRepConv` where that is faster."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) if collapsed_is_faster(x) else RepConv.forward(self, x)


class AutoMobileOne(MobileOne):
    """`MobileOne`: to compute again what goes into GELU saves memory, but on CPUs it costs time."""


class AutoRepMixer(CollapsedRepMixer):
    """`CollapsedRepMixer` where that is faster."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) if collapsed_is_faster(x) else RepMixer.forward(self, x)


_KINDS: tuple[dict[TrainForm, type[nn.Module]], ...] = (
    {"plain": ConvNorm, "collapsed": CollapsedConvNorm, "auto": AutoConvNorm},
    {"plain": ConvFFN, "collapsed": CollapsedConvFFN, "auto": AutoConvFFN},
    {"plain": RepConv, "collapsed": CollapsedRepConv, "auto": AutoRepConv},
    {"plain": MobileOne, "collapsed": CollapsedMobileOne, "auto": AutoMobileOne},
    {"plain": RepMixer, "collapsed": CollapsedRepMixer, "auto": AutoRepMixer},
)


def collapsed_is_faster(x: Tensor) -> bool:
    """Return whether "auto" takes the collapsed form: it is faster on CPUs and slower on GPUs (docs/performance.md)."""
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
    """sign * norm(factor * map)."""

    map: Tensor
    norm: _BatchNorm
    factor: Tensor | None = None
    sign: float = 1.0


def _norms(block: RepConv) -> list[nn.Module]:
    norms: list[nn.Module] = [branch.norm for branch in cast(Sequence[ConvNorm], block.branches)]
    return norms if block.identity is None else [*norms, block.identity]


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
    return depthwise_conv(*_in_one_dtype(x, conv.weight), conv.stride[0])


def _in_one_dtype(x: Tensor, *parameters: Tensor | None) -> list[Tensor]:
    """As a convolution of torch's takes them: in autocast's dtype where that is on."""
    tensors, device = [x, *(cast(Tensor, parameter) for parameter in parameters)], x.device.type
    if torch.is_autocast_enabled(device):
        tensors = [tensor.to(torch.get_autocast_dtype(device)) for tensor in tensors]
    return tensors


def _collapsible(norms: Sequence[nn.Module]) -> bool:
    """Whether the norms are of batches and alike: others, frozen ones among them, keep to the plain form."""
    return (
        all(isinstance(norm, _BatchNorm) and norm.training and norm.affine for norm in norms)
        and len({cast(_BatchNorm, norm).eps for norm in norms}) == 1
        and len({shared_over(norm) for norm in norms}) == 1
    )


def _summed(
    terms: Sequence[_Term], scale: Tensor | None = None, skip: Tensor | None = None, gelu: bool = False
) -> Tensor:
    """The terms, added up and times `scale`, plus the map `skip`; the norms count the batch."""
    maps: list[Tensor] = []
    for term in terms:
        if not any(term.map is one for one in maps):
            maps.append(term.map)
    by_map = [[term for term in terms if term.map is one] for one in maps]
    ordered = [term for some in by_map for term in some]
    first = ordered[0].norm
    group = shared_over(first)
    _refuse_one_pixel(maps[0], group)

    one = torch.ones_like(first.weight)
    factor = torch.stack([one if term.factor is None else term.factor for term in ordered])
    gain = torch.stack([term.norm.weight if term.sign > 0 else -term.norm.weight for term in ordered])
    # Added up one by one: going back from a sum over a stack, all shifts would be given the same memory as gradient.
    shift = torch.zeros_like(one)
    for term in ordered:
        shift = shift + term.norm.bias if term.sign > 0 else shift - term.norm.bias
    if scale is not None:
        gain, shift = gain * scale, shift * scale
    index = next((i for i, one in enumerate(maps) if one is skip), -1)
    counts = [len(some) for some in by_map]
    out, mean, variance, count = branch_sum(maps, factor, gain, shift, counts, index, first.eps, gelu, group)
    rows = [i for i, times in enumerate(counts) for _ in range(times)]
    for term, row in zip(ordered, rows, strict=True):
        center, spread = mean[row], variance[row]
        if term.factor is not None:
            scale = term.factor.detach()
            center, spread = center * scale, spread * scale.square()
        _track(term.norm, center, spread, count)
    return out


def _refuse_one_pixel(x: Tensor, group: str | None) -> None:
    if group is None and x[:, 0].numel() == 1:
        raise ValueError(f"batch norm needs more than one pixel a channel in training, got {tuple(x.shape)}")


def _track(norm: _BatchNorm, mean: Tensor, variance: Tensor, count: Tensor) -> None:
    """Let a norm count the batch: its running mean and unbiased variance, as torch's own does."""
    if norm.running_mean is None or norm.running_var is None:
        return
    if norm.num_batches_tracked is not None:
        norm.num_batches_tracked.add_(1)
    for running, seen in ((norm.running_mean, mean), (norm.running_var, variance * (count / (count - 1)))):
        seen = seen.to(running.dtype)
        if norm.momentum is not None:
            running.lerp_(seen, norm.momentum)
        elif norm.num_batches_tracked is not None:  # a plain average over all batches
            running.lerp_(seen, norm.num_batches_tracked.to(running.dtype).reciprocal())
