"""Exact fusion: every over-parameterized piece becomes one convolution, every norm and layer scale is folded away.

`reparameterize` is the paper's structural reparameterization, one to one with the official fused checkpoints;
`fold_batchnorm` goes on to the norms and layer scales that these still run; `fuse` is both. Each returns a new model in
eval mode and leaves the given one untouched. All algebra is done in float64 on the CPU and rounded once, at the end.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import singledispatch
from typing import Literal, TypeVar, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from fastvit.errors import UserError
from fastvit.model.blocks import ResidualBlock, SkipBlock
from fastvit.model.layers import ConvNorm, LayerNorm2d, LayerScale, RepConv
from fastvit.model.mixers import Pooling, RepCPE, RepMixer, SelfAttention
from fastvit.numerics import Differences, compare

Form = Literal["train", "reparameterized", "fused"]
Model = TypeVar("Model", bound=nn.Module)


@dataclass(frozen=True)
class Affine:
    """A linear map as a convolution: a value with +, -, scaling a channel, and center padding.

    Attributes:
        weight: (out, in / groups, k, k), k odd, float64.
        bias: (out,), float64.
        stride: of the convolution; padding is k // 2 always.
        groups: of the convolution.
    """

    weight: Tensor
    bias: Tensor
    stride: int = 1
    groups: int = 1

    def __add__(self, other: Affine) -> Affine:
        if (self.stride, self.groups) != (other.stride, other.groups):
            raise ValueError("only convolutions of equal stride and groups add up to one")
        kernel = max(self.weight.shape[-1], other.weight.shape[-1])
        return replace(
            self, weight=self.padded(kernel).weight + other.padded(kernel).weight, bias=self.bias + other.bias
        )

    def __sub__(self, other: Affine) -> Affine:
        return self + other.scaled(-torch.ones_like(other.bias))

    def scaled(self, factor: Tensor) -> Affine:
        """The map followed by a factor (out,) a channel."""
        return replace(self, weight=self.weight * factor.view(-1, 1, 1, 1), bias=self.bias * factor)

    def shifted(self, offset: Tensor) -> Affine:
        """The map followed by an offset (out,) a channel."""
        return replace(self, bias=self.bias + offset)

    def padded(self, kernel: int) -> Affine:
        """The same map with a k x k kernel grown to kernel x kernel by zeros around it."""
        border = (kernel - self.weight.shape[-1]) // 2
        return replace(self, weight=F.pad(self.weight, [border] * 4))

    def conv(self, like: Tensor) -> nn.Conv2d:
        """The map as a module, with the device and dtype of `like`."""
        out_chs, in_chs, kernel, _ = self.weight.shape
        with torch.device("meta"):
            conv = nn.Conv2d(
                in_chs * self.groups, out_chs, kernel, self.stride, kernel // 2, groups=self.groups, bias=True
            )
        conv.weight = nn.Parameter(self.weight.to(like.device, like.dtype))
        conv.bias = nn.Parameter(self.bias.to(like.device, like.dtype))
        return conv.eval()


def _exact(tensor: Tensor) -> Tensor:
    """float64 on the CPU (some devices have no float64); what is on `meta` stays there."""
    return tensor.detach().to("meta" if tensor.is_meta else "cpu", torch.float64)


def identity(channels: int, groups: int, like: Tensor) -> Affine:
    """x -> x as a 1x1 convolution, on the device of `like`."""
    width = channels // groups
    weight = torch.eye(width, dtype=torch.float64, device=like.device).repeat(groups, 1)
    return Affine(weight[:, :, None, None], torch.zeros(channels, dtype=torch.float64, device=like.device), 1, groups)


def norm_coefficients(norm: _BatchNorm) -> tuple[Tensor, Tensor]:
    """(a, b), each (C,), float64: an eval-mode batch norm is x -> a * x + b.

    Raises:
        UserError: the norm keeps no running statistics, so that it is no fixed linear map.
    """
    if norm.running_mean is None or norm.running_var is None:
        raise UserError("a batch norm without running statistics depends on its batch and cannot be fused")
    mean, var = _exact(norm.running_mean), _exact(norm.running_var)
    scale = (var + norm.eps).rsqrt()
    if norm.weight is None:
        return scale, -mean * scale
    scale = scale * _exact(norm.weight)
    return scale, _exact(norm.bias) - mean * scale


@singledispatch
def affine(module: nn.Module) -> Affine:
    """Which convolution is this module in eval mode?

    Raises:
        TypeError: the module is not one convolution.
    """
    raise TypeError(f"{type(module).__name__} is not one convolution")


@affine.register
def _(module: nn.Conv2d) -> Affine:
    kernel = module.kernel_size[0]
    square = module.kernel_size == (kernel, kernel) and module.stride[0] == module.stride[1]
    plain = square and kernel % 2 == 1 and module.padding_mode == "zeros"
    if not plain or module.padding != (kernel // 2,) * 2 or module.dilation != (1, 1):
        raise TypeError("only square, odd, zero-padded, undilated convolutions take part in fusion")
    weight = _exact(module.weight)
    bias = weight.new_zeros(module.out_channels) if module.bias is None else _exact(module.bias)
    return Affine(weight, bias, module.stride[0], module.groups)


@affine.register
def _(module: ConvNorm) -> Affine:
    scale, shift = norm_coefficients(cast(_BatchNorm, module.norm))
    return affine(module.conv).scaled(scale).shifted(shift)


@affine.register
def _(module: RepConv) -> Affine:
    total, *rest = (affine(branch) for branch in module.branches)
    for term in rest:
        total = total + term
    if module.identity is not None:
        scale, shift = norm_coefficients(cast(_BatchNorm, module.identity))
        total = total + identity(len(scale), total.groups, scale).scaled(scale).shifted(shift)
    return total


@affine.register
def _(module: RepMixer) -> Affine:
    mixer = affine(module.mixer)
    skip = identity(len(mixer.bias), mixer.groups, mixer.bias)
    scale, shift = norm_coefficients(cast(_BatchNorm, module.norm))
    normed = skip.scaled(scale).shifted(shift)
    return skip + (mixer - normed).scaled(_exact(module.layer_scale.gamma).flatten())


@affine.register
def _(module: RepCPE) -> Affine:
    conv = affine(module.conv)
    return conv + identity(len(conv.bias), conv.groups, conv.bias)


def _parameter(module: nn.Module) -> Tensor:
    return next(module.parameters())


def _has_branches(module: nn.Module) -> bool:
    """Whether `affine` has a rule for a module that is more than a convolution, with or without a norm."""
    single = {affine.dispatch(kind) for kind in (nn.Module, nn.Conv2d, ConvNorm)}
    return affine.dispatch(type(module)) not in single


def _merge(module: nn.Module) -> nn.Module | None:
    return affine(module).conv(_parameter(module)) if _has_branches(module) else None


def _fold_conv(module: nn.Module) -> nn.Module | None:
    return affine(module).conv(_parameter(module)) if isinstance(module, ConvNorm) else None


@singledispatch
def _fold(module: nn.Module) -> None:
    """Fold what a block can fold, in a copy that is ours; a block that has been folded stays as it is."""


@_fold.register
def _(module: SkipBlock) -> None:
    module.layer_scale = _absorb_scale(module.layer_scale, module.ffn.fc2)


@_fold.register
def _(module: ResidualBlock) -> None:
    module.layer_scale_2 = _absorb_scale(module.layer_scale_2, module.ffn.fc2)
    module.norm, module.layer_scale_1 = fold_mixer(module.token_mixer, module.norm, module.layer_scale_1)


@singledispatch
def fold_mixer(mixer: nn.Module, norm: nn.Module, scale: nn.Module) -> tuple[nn.Module, nn.Module]:
    """Fold into a token mixer, in place, what a residual block has around it: the norm before it and the layer scale.

    Returns:
        What is left of the two; nn.Identity where nothing is. A mixer without a rule keeps both.
    """
    return norm, scale


@fold_mixer.register
def _(mixer: SelfAttention, norm: nn.Module, scale: nn.Module) -> tuple[nn.Module, nn.Module]:
    return _absorb_norm(norm, mixer.qkv), _absorb_scale(scale, mixer.proj)


@fold_mixer.register
def _(mixer: Pooling, norm: nn.Module, scale: nn.Module) -> tuple[nn.Module, nn.Module]:
    """A mean keeps constants, so the norm's shift cancels, and its slope comes out as a factor."""
    if not isinstance(scale, LayerScale):
        return norm, scale
    slope, _, rest = _take_affine(norm) or (torch.ones_like(_exact(scale.gamma).flatten()), None, norm)
    factor = (slope * _exact(scale.gamma).flatten()).view(-1, 1, 1)
    mixer.factor = nn.Parameter(factor.to(scale.gamma.device, scale.gamma.dtype))
    return rest.eval(), nn.Identity()


def _assign(linear: nn.Linear | nn.Conv2d, weight: Tensor, bias: Tensor) -> None:
    like = linear.weight
    linear.weight = nn.Parameter(weight.to(like.device, like.dtype))
    linear.bias = nn.Parameter(bias.to(like.device, like.dtype))


def _absorb_scale(scale: nn.Module, linear: nn.Linear | nn.Conv2d) -> nn.Module:
    """Move a layer scale into the linear map before it."""
    if not isinstance(scale, LayerScale):
        return scale
    gamma = _exact(scale.gamma).flatten()
    weight, bias = _exact(linear.weight), _exact(cast(Tensor, linear.bias))
    _assign(linear, weight * gamma.view(-1, *[1] * (weight.ndim - 1)), bias * gamma)
    return nn.Identity()


def _take_affine(norm: nn.Module) -> tuple[Tensor, Tensor, nn.Module] | None:
    """Split a norm into slope and shift, (C,), and what is left; None where there is nothing to take.

    A layer norm keeps its normalization, which is not linear.
    """
    if isinstance(norm, _BatchNorm):
        return *norm_coefficients(norm), nn.Identity()
    if isinstance(norm, LayerNorm2d) and norm.elementwise_affine:
        rest = LayerNorm2d(norm.normalized_shape[0], elementwise_affine=False)
        return _exact(norm.weight), _exact(norm.bias), rest
    return None


def _absorb_norm(norm: nn.Module, linear: nn.Linear) -> nn.Module:
    """Move a norm into the linear map behind it; of a layer norm only its affine part."""
    taken = _take_affine(norm)
    if taken is None:
        return norm
    scale, shift, rest = taken
    weight = _exact(linear.weight)
    bias = weight @ shift
    _assign(linear, weight * scale, bias if linear.bias is None else bias + _exact(linear.bias))
    return rest.eval()


def _copy(model: nn.Module) -> nn.Module:
    """A deep copy in eval mode, without gradients (copying leaves them out) and outside any compiled wrapper."""
    return copy.deepcopy(uncompiled(model)).eval()


def uncompiled(model: nn.Module) -> nn.Module:
    """The module that torch.compile wrapped, or the module itself."""
    # The wrapper keeps it under this name; asking torch._dynamo for the wrapper's type would import it for seconds.
    return cast(nn.Module, getattr(model, "_orig_mod", model))


def replaced(module: nn.Module, rule: Callable[[nn.Module], nn.Module | None]) -> nn.Module:
    """The tree with every module that the rule replaces exchanged, the outermost first."""
    new = rule(module)
    if new is not None:
        return new
    for name, child in module.named_children():
        setattr(module, name, replaced(child, rule))
    return module


def reparameterize(model: Model) -> Model:
    """Structural reparameterization: what `affine` has a rule for becomes one nn.Conv2d (paper, section 3.2).

    The result has the structure of the official fused checkpoints: batch norms of the ConvFFN and before attention and
    the layer scales are still there.
    """
    return cast(Model, replaced(_copy(model), _merge))


def fold_batchnorm(model: Model) -> Model:
    """Fold the norm of every ConvNorm, the norm before every qkv and every layer scale of a block into its neighbor.

    ConvNorms that are left when branches are merged are those of the ConvFFNs, and of the heads of detection,
    segmentation and hand mesh networks. Layer norms (MCi3, MCi4) keep their normalization; their affine part folds.
    """
    result = replaced(_copy(model), _fold_conv)
    for module in result.modules():
        _fold(module)
    return cast(Model, result)


def fuse(model: Model) -> Model:
    """The inference form of any module that contains a FastViT: no batch norm and no layer scale is left in it.

    Exact in eval mode up to rounding: see `verify`. Works on SyncBatchNorm, on `meta` (which gives the skeleton for
    fused weights), on a compiled module (its original is fused), and on a model that is fused already.

    Args:
        model: any module; what is not FastViT's stays as it is.

    Returns:
        A new model in eval mode; the given one keeps its storage, its optimizer and its compiled graph.
    """
    return fold_batchnorm(reparameterize(model))


def form(model: nn.Module) -> Form:
    """The form a model is in, read off its modules."""
    modules = list(model.modules())
    if any(_has_branches(m) for m in modules):
        return "train"
    # Not layer scales: a token mixer without a rule keeps its own.
    if any(isinstance(m, ConvNorm) for m in modules):
        return "reparameterized"
    return "fused"


def verify(model: nn.Module, fused: nn.Module, images: Tensor) -> Differences:
    """Run both in eval mode on (B, C, H, W) images and measure how far the outputs are apart.

    Each gets the images on its own device and in its own precision. Outputs may be nested lists, tuples and dicts of
    tensors. The models are left in the mode they were in.
    """
    with torch.inference_mode():
        return compare(_evaluated(model, images), _evaluated(fused, images))


def _evaluated(model: nn.Module, images: Tensor) -> object:
    modes = [(module, module.training) for module in model.modules()]
    try:
        like = _parameter(model)
        return model.eval()(images.to(like.device, like.dtype))
    finally:
        for module, mode in modes:
            module.training = mode
