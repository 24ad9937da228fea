"""Token mixers: modules that mix the pixels of a (B, C, H, W) map."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn import functional as F

from fastvit.errors import UserError
from fastvit.model.config import FastViTConfig, Stage
from fastvit.model.layers import LayerScale, RepConv, conv2d
from fastvit.plugins import find, register


class RepMixer(nn.Module):
    """RepMixer, x + layer_scale * (mixer(x) - norm(x)): one depthwise convolution when fused (paper, section 3.2.1).

    Drop path does not apply, because the skip connection is inside.
    """

    def __init__(self, channels: int, kernel: int, layer_scale_init: float) -> None:
        super().__init__()
        self.mixer = RepConv(channels, channels, (kernel, 1), groups=channels)
        self.norm = nn.BatchNorm2d(channels)
        self.layer_scale = LayerScale(channels, layer_scale_init)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layer_scale(self.mixer(x) - self.norm(x))


class SelfAttention(nn.Module):
    """Multi-head self-attention over all pixels: (B, C, H, W) -> (B, C, H, W).

    The linear layer qkv has no bias until norms are folded.

    Raises:
        UserError: channels are not a multiple of head_dim.
    """

    def __init__(self, channels: int, head_dim: int) -> None:
        super().__init__()
        if channels % head_dim:
            raise UserError(
                f"the width of an attention stage must be a multiple of head_dim={head_dim}, got {channels}"
            )
        self.head_dim = head_dim
        self.qkv = nn.Linear(channels, 3 * channels, bias=False)
        self.proj = nn.Linear(channels, channels)
        for linear in (self.qkv, self.proj):
            nn.init.trunc_normal_(linear.weight, std=0.02)
        nn.init.zeros_(self.proj.bias)

    def forward(self, x: Tensor) -> Tensor:
        batch, channels, height, width = x.shape
        tokens = x.flatten(2).transpose(1, 2)
        qkv = self.qkv(tokens).unflatten(2, (3, channels // self.head_dim, self.head_dim))
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        mixed = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        return self.proj(mixed).transpose(1, 2).reshape(batch, channels, height, width)


class Pooling(nn.Module):
    """Average pooling minus the input, without padding in the average (PoolFormer, arXiv 2111.11418).

    Args:
        kernel: side of the pooling window, in pixels.

    Attributes:
        factor: factor of the result in the fused form, (C, 1, 1); None in the train form.
    """

    def __init__(self, kernel: int) -> None:
        super().__init__()
        self.kernel = kernel
        self.factor: nn.Parameter | None = None

    def forward(self, x: Tensor) -> Tensor:
        mean = F.avg_pool2d(x, self.kernel, 1, self.kernel // 2, count_include_pad=False)
        return mean - x if self.factor is None else (mean - x) * self.factor


class RepCPE(nn.Module):
    """Conditional positional encoding, x + depthwise(x); one convolution when fused (arXiv 2102.10882)."""

    def __init__(self, channels: int, kernel: int) -> None:
        super().__init__()
        self.conv = conv2d(channels, channels, kernel, groups=channels, bias=True)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv(x)


@dataclass(frozen=True)
class TokenMixer:
    """Row of the table of token mixers.

    Attributes:
        make: function of stage and network configuration that returns a module, (B, C, H, W) -> (B, C, H, W).
        residual: whether the block adds a norm, a layer scale and a skip connection around the mixer, as for
            self-attention; if False, the mixer contains its own skip connection, as RepMixer does.
    """

    make: Callable[[Stage, FastViTConfig], nn.Module]
    residual: bool


MIXERS: dict[str, TokenMixer] = {
    "repmixer": TokenMixer(lambda s, c: RepMixer(s.width, c.mixer_kernel, c.layer_scale_init), residual=False),
    "pooling": TokenMixer(lambda s, c: Pooling(c.mixer_kernel), residual=True),
    "attention": TokenMixer(lambda s, c: SelfAttention(s.width, c.head_dim), residual=True),
}


def register_mixer(name: str, make: Callable[[Stage, FastViTConfig], nn.Module], residual: bool) -> None:
    """Add a token mixer that `Stage.mixer` can select by its name.

    To fuse the mixer, also register a rule: with `fastvit.fusion.affine` for a mixer that is one convolution in eval
    mode, else with `fastvit.fusion.fold_mixer`. Without a rule, its norm and layer scale are not folded.

    Args:
        name: name of the mixer in configurations and files.
        make: function of stage and network configuration that returns a module, (B, C, H, W) -> (B, C, H, W).
        residual: whether the block adds a norm, a layer scale and a skip connection around the mixer.

    Raises:
        UserError: a token mixer of that name exists already.
    """
    register(MIXERS, "token mixer", name, TokenMixer(make, residual))


def find_mixer(name: str) -> TokenMixer:
    """Return the row of a token mixer.

    Raises:
        UserError: the token mixer does not exist; the message lists all.
    """
    return find(MIXERS, "token mixer", name)
