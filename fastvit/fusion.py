"""Exact fusion: merge parallel branches into one convolution, and fold batch norms and layer scales.

`reparameterize` is the structural reparameterization of the paper, and gives the layout of the official fused
checkpoints. `fold_batchnorm` folds the norms and layer scales that these still contain. `fuse` is both. Each function
returns a new model in eval mode and does not change the given one. Weights are computed in float64 on the CPU and
rounded once, at the end.
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
    """Linear map as a convolution with padding k // 2; maps can be added, subtracted, scaled, shifted and padded.

    Attributes:
        weight: weight of the convolution, (out, in / groups, k, k), k odd, float64.
        bias: bias of the convolution, (out,), float64.
        stride: stride of the convolution.
        groups: groups of the convolution.
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
        """Return the map followed by a factor per channel, (out,)."""
        return replace(self, weight=self.weight * factor.view(-1, 1, 1, 1), bias=self.bias * factor)

    def shifted(self, offset: Tensor) -> Affine:
        """Return the map followed by an offset per channel, (out,)."""
        return replace(self, bias=self.bias + offset)

    def padded(self, kernel: int) -> Affine:
        """Return the same map with its kernel zero-padded to kernel x kernel."""
        border = (kernel - self.weight.shape[-1]) // 2
        return replace(self, weight=F.pad(self.weight, [border] * 4))

    def conv(self, like: Tensor) -> nn.Conv2d:
        """Return the map as a module in eval mode, with the device and dtype of `like`."""
        out_chs, in_chs, kernel, _ = self.weight.shape
        with torch.device("meta"):
            conv = nn.Conv2d(
                in_chs * self.groups, out_chs, kernel, self.stride, kernel // 2, groups=self.groups, bias=True
            )
        conv.weight = nn.Parameter(self.weight.to(like.device, like.dtype))
        conv.bias = nn.Parameter(self.bias.to(like.device, like.dtype))
        return conv.eval()


def _exact(tensor: Tensor) -> Tensor:
    """Return a tensor in float64 on the CPU (some devices have no float64); a tensor on `meta` stays there."""
    return tensor.detach().to("meta" if tensor.is_meta else "cpu", torch.float64)


def identity(channels: int, groups: int, like: Tensor) -> Affine:
    """Return the identity as a 1x1 convolution.

    Args:
        channels: input and output channels.
        groups: groups of the convolution.
        like: tensor whose device is used.
    """
    width = channels // groups
    weight = torch.eye(width, dtype=torch.float64, device=like.device).repeat(groups, 1)
    return Affine(weight[:, :, None, None], torch.zeros(channels, dtype=torch.float64, device=like.device), 1, groups)


def norm_coefficients(norm: _BatchNorm) -> tuple[Tensor, Tensor]:
    """Return a and b, each (C,) in float64, so that the batch norm in eval mode is x -> a * x + b.

    Raises:
        UserError: the norm has no running statistics, so that it is not a fixed linear map.
    """
    if norm.running_mean is None or norm.running_var is None:
        raise UserError("cannot fuse a batch norm without running statistics: its outputs depend on the batch")
    mean, var = _exact(norm.running_mean), _exact(norm.running_var)
    scale = (var + norm.eps).rsqrt()
    if norm.weight is None:
        return scale, -mean * scale
    scale = scale * _exact(norm.weight)
    return scale, _exact(norm.bias) - mean * scale


@singledispatch
def affine(module: nn.Module) -> Affine:
    """Return the convolution that equals a module in eval mode.

    This is a single-dispatch function: `affine.register` adds a rule for another class of modules.

    Raises:
        TypeError: the module does not equal one convolution.
    """
    raise TypeError(f"{type(module).__name__} is not one convolution")


@affine.register
def _(module: nn.Conv2d) -> Affine:
    kernel = module.kernel_size[0]
    square = module.kernel_size == (kernel, kernel) and module.stride[0] == module.stride[1]
    plain = square and kernel % 2 == 1 and module.padding_mode == "zeros"
    if not plain or module.padding != (kernel // 2,) * 2 or module.dilation != (1, 1):
        raise TypeError(
            "only convolutions with a square odd kernel, zero padding of half its size and no dilation fuse"
        )
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
    """Return whether `affine` has a rule for a module that is more than a convolution with or without a norm."""
    single = {affine.dispatch(kind) for kind in (nn.Module, nn.Conv2d, ConvNorm)}
    return affine.dispatch(type(module)) not in single


def _merge(module: nn.Module) -> nn.Module | None:
    return affine(module).conv(_parameter(module)) if _has_branches(module) else None


def _fold_conv(module: nn.Module) -> nn.Module | None:
    return affine(module).conv(_parameter(module)) if isinstance(module, ConvNorm) else None


@singledispatch
def _fold(module: nn.Module) -> None:
    """Fold the norms and layer scales of a block, in place; a folded block stays as it is."""


@_fold.register
def _(module: SkipBlock) -> None:
    module.layer_scale = _absorb_scale(module.layer_scale, module.ffn.fc2)


@_fold.register
def _(module: ResidualBlock) -> None:
    module.layer_scale_2 = _absorb_scale(module.layer_scale_2, module.ffn.fc2)
    module.norm, module.layer_scale_1 = fold_mixer(module.token_mixer, module.norm, module.layer_scale_1)


@singledispatch
def fold_mixer(mixer: nn.Module, norm: nn.Module, scale: nn.Module) -> tuple[nn.Module, nn.Module]:
    """Fold the norm before a token mixer, and the layer scale after it, into the mixer, in place.

    This is a single-dispatch function: `fold_mixer.register` adds a rule for another class of mixers.

    Args:
        mixer: token mixer of a residual block.
        norm: norm before the mixer.
        scale: layer scale after the mixer.

    Returns:
        The norm and the layer scale that remain; nn.Identity if nothing remains. Without a rule, both stay.
    """
    return norm, scale


@fold_mixer.register
def _(mixer: SelfAttention, norm: nn.Module, scale: nn.Module) -> tuple[nn.Module, nn.Module]:
    return _absorb_norm(norm, mixer.qkv), _absorb_scale(scale, mixer.proj)


@fold_mixer.register
def _(mixer: Pooling, norm: nn.Module, scale: nn.Module) -> tuple[nn.Module, nn.Module]:
    """Fold into pooling: the shift of the norm cancels, and its slope becomes a factor of the result."""
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
    """Fold a layer scale into the linear map before it, and return what is left of it."""
    if not isinstance(scale, LayerScale):
        return scale
    gamma = _exact(scale.gamma).flatten()
    weight, bias = _exact(linear.weight), _exact(cast(Tensor, linear.bias))
    _assign(linear, weight * gamma.view(-1, *[1] * (weight.ndim - 1)), bias * gamma)
    return nn.Identity()


def _take_affine(norm: nn.Module) -> tuple[Tensor, Tensor, nn.Module] | None:
    """Split a norm into slope and shift, each (C,), and the rest; return None if it has no affine part.

    The normalization of a layer norm stays, because it is not linear.
    """
    if isinstance(norm, _BatchNorm):
        return *norm_coefficients(norm), nn.Identity()
    if isinstance(norm, LayerNorm2d) and norm.elementwise_affine:
        rest = LayerNorm2d(norm.normalized_shape[0], elementwise_affine=False)
        return _exact(norm.weight), _exact(norm.bias), rest
    return None


def _absorb_norm(norm: nn.Module, linear: nn.Linear) -> nn.Module:
    """Fold a norm into the linear map after it, and return what is left: the normalization of a layer norm."""
    taken = _take_affine(norm)
    if taken is None:
        return norm
    scale, shift, rest = taken
    weight = _exact(linear.weight)
    bias = weight @ shift
    _assign(linear, weight * scale, bias if linear.bias is None else bias + _exact(linear.bias))
    return rest.eval()


def _copy(model: nn.Module) -> nn.Module:
    """Return a deep copy in eval mode, without gradients and without the wrapper of torch.compile."""
    return copy.deepcopy(uncompiled(model)).eval()


def uncompiled(model: nn.Module) -> nn.Module:
    """Return the module that torch.compile wrapped, or the module itself."""
    # The wrapper has it under this name. Importing torch._dynamo for the type of the wrapper would take seconds.
    return cast(nn.Module, getattr(model, "_orig_mod", model))


def replaced(module: nn.Module, rule: Callable[[nn.Module], nn.Module | None]) -> nn.Module:
    """Replace modules in a tree, in place, the outermost first.

    Args:
        module: root of the tree.
        rule: function that returns a new module, or None to keep a module and look into it.

    Returns:
        The root, or the module that replaces it.
    """
    new = rule(module)
    if new is not None:
        return new
    for name, child in module.named_children():
        setattr(module, name, replaced(child, rule))
    return module


def reparameterize(model: Model) -> Model:
    """Merge the parallel branches of each block into one nn.Conv2d (structural reparameterization, paper, section 3.2).

    The result has the layout of the official fused checkpoints: it still contains layer scales, and the batch norms of
    the ConvFFN and before attention. Modules for which `affine` has a rule are merged.

    Args:
        model: any module that contains a FastViT; other parts are not changed.

    Returns:
        A new model in eval mode.

    Raises:
        UserError: a batch norm has no running statistics.
    """
    return cast(Model, replaced(_copy(model), _merge))


def fold_batchnorm(model: Model) -> Model:
    """Fold batch norms and layer scales into the neighboring convolutions and linear layers.

    This covers the norm of every ConvNorm, the norm before every qkv, and the layer scales of blocks. After
    `reparameterize`, ConvNorms are left in ConvFFNs and in the heads of detection, segmentation and hand mesh networks.
    Layer norms (MCi3, MCi4) keep their normalization; only their affine part is folded.

    Args:
        model: any module that contains a FastViT; other parts are not changed.

    Returns:
        A new model in eval mode.

    Raises:
        UserError: a batch norm has no running statistics.
    """
    result = replaced(_copy(model), _fold_conv)
    for module in result.modules():
        _fold(module)
    return cast(Model, result)


def fuse(model: Model) -> Model:
    """Return the fused model for inference, without batch norms and layer scales in its FastViT.

    The outputs in eval mode are the same up to rounding: see `verify`. SyncBatchNorm, models on `meta`, compiled
    modules (the original module is fused) and models that are fused already are supported.

    Args:
        model: any module that contains a FastViT; other parts are not changed.

    Returns:
        A new model in eval mode; the given one stays usable for training.

    Raises:
        UserError: a batch norm has no running statistics.
    """
    return fold_batchnorm(reparameterize(model))


def form(model: nn.Module) -> Form:
    """Return the form of a model, determined from its modules: "train", "reparameterized" or "fused"."""
    modules = list(model.modules())
    if any(_has_branches(m) for m in modules):
        return "train"
    # Layer scales do not count: a token mixer without a rule keeps its own.
    if any(isinstance(m, ConvNorm) for m in modules):
        return "reparameterized"
    return "fused"


def verify(model: nn.Module, fused: nn.Module, images: Tensor) -> Differences:
    """Run two models in eval mode on the same images, and measure the differences of their outputs.

    Each model gets the images on its own device and in its own dtype. Outputs may be nested lists, tuples and dicts of
    tensors. The models are returned to their train or eval mode afterwards.

    Args:
        model: reference, such as a model in train form.
        fused: model to compare, such as the fused one.
        images: normalized images, (B, C, H, W).

    Raises:
        ValueError: the outputs have different structures or shapes, or contain no tensors.
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
