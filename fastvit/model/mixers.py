"""Token mixers: how the pixels of a (B, C, H, W) map see each other."""

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
    """x + layer_scale * (mixer(x) - norm(x)), all linear: at inference one depthwise convolution (paper, 3.2.1).

    Drop path does not apply here: the skip connection is inside the map.
    """

    def __init__(self, channels: int, kernel: int, layer_scale_init: float) -> None:
        super().__init__()
        self.mixer = RepConv(channels, channels, (kernel, 1), groups=channels)
        self.norm = nn.BatchNorm2d(channels)
        self.layer_scale = LayerScale(channels, layer_scale_init)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layer_scale(self.mixer(x) - self.norm(x))


class SelfAttention(nn.Module):
    """Multi-head self-attention over all pixels: (B, C, H, W) -> (B, C, H, W). No bias on qkv until norms are folded.

    Raises:
        UserError: channels are not a multiple of head_dim.
    """

    def __init__(self, channels: int, head_dim: int) -> None:
        super().__init__()
        if channels % head_dim:
            raise UserError(f"attention needs a width that is a multiple of head_dim={head_dim}, got {channels}")
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
    """The mean of a pixel's neighborhood, without what lies outside of the map, minus the pixel (arXiv 2111.11418).

    Args:
        kernel: side of the neighborhood in pixels.

    Attributes:
        factor: (C, 1, 1), what the fused form multiplies the result with; None in the train form.
    """

    def __init__(self, kernel: int) -> None:
        super().__init__()
        self.kernel = kernel
        self.factor: nn.Parameter | None = None

    def forward(self, x: Tensor) -> Tensor:
        mean = F.avg_pool2d(x, self.kernel, 1, self.kernel // 2, count_include_pad=False)
        return mean - x if self.factor is None else (mean - x) * self.factor


class RepCPE(nn.Module):
    """Conditional positional encoding, x + depthwise(x): one convolution when fused (arXiv 2102.10882)."""

    def __init__(self, channels: int, kernel: int) -> None:
        super().__init__()
        self.conv = conv2d(channels, channels, kernel, groups=channels, bias=True)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv(x)


@dataclass(frozen=True)
class TokenMixer:
    """A row of the table of token mixers.

    Attributes:
        make: (stage, config) -> a module that maps (B, C, H, W) to the same shape.
        residual: the block around it normalizes the map before it, and scales and adds what comes out, as for
            self-attention; otherwise the mixer contains its own skip connection, as RepMixer does.
    """

    make: Callable[[Stage, FastViTConfig], nn.Module]
    residual: bool


MIXERS: dict[str, TokenMixer] = {
    "repmixer": TokenMixer(lambda s, c: RepMixer(s.width, c.mixer_kernel, c.layer_scale_init), residual=False),
    "pooling": TokenMixer(lambda s, c: Pooling(c.mixer_kernel), residual=True),
    "attention": TokenMixer(lambda s, c: SelfAttention(s.width, c.head_dim), residual=True),
}


def register_mixer(name: str, make: Callable[[Stage, FastViTConfig], nn.Module], residual: bool) -> None:
    """Add a token mixer, for `Stage.mixer` to name.

    For an exact fusion also register a rule: `fastvit.fusion.affine` for a mixer that is one convolution in eval mode,
    else `fastvit.fusion.fold_mixer`. Without one its norm and layer scale stay.

    Args:
        name: in configurations and files.
        make: as in `TokenMixer`.
        residual: as in `TokenMixer`.

    Raises:
        UserError: there is a token mixer of that name.
    """
    register(MIXERS, "token mixer", name, TokenMixer(make, residual))


def find_mixer(name: str) -> TokenMixer:
    """Return the row of a token mixer.

    Raises:
        UserError: there is no such token mixer; the message lists what there is.
    """
    return find(MIXERS, "token mixer", name)
