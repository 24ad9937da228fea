"""Collapsed branches in training: compute each block as one sum instead of branch by branch.

In training every branch of a RepConv or RepMixer ends in a batch norm. The statistics of all norms follow from those of
the block's input and of its convolutions' outputs. The collapsed form computes only these, and makes each block one
affine combination (`fastvit.kernels.training`): it takes less time and less memory, and its outputs are the same. The
branch-by-branch form is the definition. Parameters, buffers, state dicts and files are the same in both forms, and eval
mode is not changed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial, singledispatch
from typing import Any, Literal, TypeVar, cast, get_args

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

CollapseMode = Literal["never", "always", "auto"]
Model = TypeVar("Model", bound=nn.Module)


def collapse_branches(model: Model, mode: CollapseMode) -> Model:
    """Set how the branches of a model are computed in training, in place.

    Only the `forward` of the modules is replaced: classes, names, parameters, buffers and hooks stay the same, so that
    `fastvit.fuse`, `fastvit.form` and `fastvit.save` are not affected. Call this before torch.compile.

    Args:
        model: any module that contains a FastViT; other parts are not changed.
        mode: "never" runs each branch and its norm, "always" computes each block as one sum, and "auto" chooses the
            faster one for the device of the images.

    Returns:
        The same model.

    Raises:
        UserError: the mode does not exist.
    """
    if mode not in get_args(CollapseMode):
        raise unknown_name("collapse mode", mode, get_args(CollapseMode))
    for module in model.modules():
        if _mode_of(module) != "never":
            del module.forward  # restores the method of the class
        collapsed = _COLLAPSED.get(type(module))
        # Partial functions can be copied and pickled with their module; a bound method of another class cannot.
        if collapsed and mode == "always":
            module.forward = partial(collapsed, module)
        elif collapsed and mode == "auto" and not isinstance(module, _NEVER_FASTER):
            module.forward = partial(_where_faster, collapsed, module)
    return model


def collapse_mode(model: nn.Module) -> CollapseMode:
    """Return how the branches of a model are computed in training; "never" also if it has none."""
    return next((mode for mode in map(_mode_of, model.modules()) if mode != "never"), "never")


def _mode_of(module: nn.Module) -> CollapseMode:
    """Return the mode of a module by itself."""
    forward = vars(module).get("forward")
    function = forward.func if isinstance(forward, partial) else None
    if function is _where_faster:
        return "auto"
    return "always" if function in _COLLAPSED.values() else "never"


def _conv_norm(module: ConvNorm, x: Tensor) -> Tensor:
    """Compute `ConvNorm` with a depthwise convolution whose backward pass is fast. A single norm is not collapsed."""
    return module.norm(_convolved(module.conv, x)) if module.training else ConvNorm.forward(module, x)


def _conv_ffn(module: ConvFFN, x: Tensor) -> Tensor:
    """Compute `ConvFFN` without a normalized map: the norm is in the weights of the 1x1 convolution after it."""
    spatial, fc1, fc2 = module.conv, module.fc1, module.fc2
    if not isinstance(spatial, ConvNorm) or not _collapsible([spatial.norm]):
        return ConvFFN.forward(module, x)
    norm = spatial.norm
    group = shared_over(norm)
    y = _convolved(spatial.conv, x)
    _refuse_one_pixel(y, group)
    hidden, mean, variance, count = norm_pointwise(y, fc1.weight, fc1.bias, norm.weight, norm.bias, norm.eps, group)
    _track(norm, mean[0], variance[0], count)
    return pointwise(*_in_one_dtype(module.act(hidden), fc2.weight, fc2.bias))


def _rep_conv(module: RepConv, x: Tensor) -> Tensor:
    """Compute `RepConv` as one combination of its input and its convolutions' outputs."""
    return _summed(_terms(module, x)) if _collapsible(_norms(module)) else RepConv.forward(module, x)


def _mobile_one(module: MobileOne, x: Tensor) -> Tensor:
    """Compute `MobileOne` with GELU in the same pass; the input of GELU is not kept."""
    block = module.conv
    if isinstance(module.se, nn.Identity) and isinstance(block, RepConv) and _collapsible(_norms(block)):
        return _summed(_terms(block, x), gelu=True)
    return MobileOne.forward(module, x)


def _rep_mixer(module: RepMixer, x: Tensor) -> Tensor:
    """Compute `RepMixer` as one combination of its input and its convolution's output."""
    if not _collapsible([*_norms(module.mixer), module.norm]):
        return RepMixer.forward(module, x)
    terms = [*_terms(module.mixer, x), _Term(x, module.norm, sign=-1.0)]
    return _summed(terms, module.layer_scale.gamma.flatten(), skip=x)


# Collapsed form of each class (not of its subclasses): a function of the module and its input.
_COLLAPSED: dict[type[nn.Module], Callable[[Any, Tensor], Tensor]] = {
    ConvNorm: _conv_norm,
    ConvFFN: _conv_ffn,
    RepConv: _rep_conv,
    MobileOne: _mobile_one,
    RepMixer: _rep_mixer,
}
# Classes that "auto" does not collapse: recomputing the input of GELU saves memory, but takes time on CPUs.
_NEVER_FASTER = (MobileOne,)


def _where_faster(collapsed: Callable[[Any, Tensor], Tensor], module: nn.Module, x: Tensor) -> Tensor:
    return collapsed(module, x) if collapsed_is_faster(x) else type(module).forward(module, x)


def collapsed_is_faster(x: Tensor) -> bool:
    """Return whether "auto" takes the collapsed form: it is faster on CPUs and slower on GPUs (docs/performance.md)."""
    return x.device.type == "cpu"


@singledispatch
def shared_over(norm: nn.Module) -> str | None:
    """Return the name of the process group that shares a norm's batch statistics; None for this process only.

    This is a single-dispatch function: `shared_over.register` adds a rule for another class of norms.
    """
    return None


@shared_over.register
def _(norm: nn.SyncBatchNorm) -> str | None:
    distributed = torch.distributed.is_available() and torch.distributed.is_initialized()
    if not distributed or torch.distributed.get_world_size(norm.process_group) == 1:
        return None
    return group_name(norm.process_group)


@dataclass(frozen=True)
class _Term:
    """Term of a sum: sign * norm(factor * map)."""

    map: Tensor
    norm: _BatchNorm
    factor: Tensor | None = None
    sign: float = 1.0


def _norms(block: RepConv) -> list[nn.Module]:
    norms: list[nn.Module] = [branch.norm for branch in cast(Sequence[ConvNorm], block.branches)]
    return norms if block.identity is None else [*norms, block.identity]


def _terms(block: RepConv, x: Tensor) -> list[_Term]:
    """Return the terms that a RepConv adds up."""
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
    """Return the tensors in the dtype of autocast if it is enabled, as PyTorch's convolutions use them."""
    tensors, device = [x, *(cast(Tensor, parameter) for parameter in parameters)], x.device.type
    if torch.is_autocast_enabled(device):
        tensors = [tensor.to(torch.get_autocast_dtype(device)) for tensor in tensors]
    return tensors


def _collapsible(norms: Sequence[nn.Module]) -> bool:
    """Return whether all norms are batch norms in training with the same settings; others are not collapsed."""
    return (
        all(isinstance(norm, _BatchNorm) and norm.training and norm.affine for norm in norms)
        and len({cast(_BatchNorm, norm).eps for norm in norms}) == 1
        and len({shared_over(norm) for norm in norms}) == 1
    )


def _summed(
    terms: Sequence[_Term], scale: Tensor | None = None, skip: Tensor | None = None, gelu: bool = False
) -> Tensor:
    """Return the sum of the terms times `scale`, plus the map `skip`; update the running statistics of the norms."""
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
    # Add the shifts one by one: with a sum over a stack, their gradients would all share the same memory.
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
        raise ValueError(f"batch norm needs more than one value per channel in training, got shape {tuple(x.shape)}")


def _track(norm: _BatchNorm, mean: Tensor, variance: Tensor, count: Tensor) -> None:
    """Update the running mean and the unbiased running variance of a norm, as PyTorch does."""
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
