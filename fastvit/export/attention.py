"""Self-attention for runtimes with few operators: 1x1 convolutions and products of 4-D arrays, channels first."""

from __future__ import annotations

import copy

from torch import Tensor, nn

from fastvit.export.program import Exportable
from fastvit.model.mixers import SelfAttention


class PlainAttention(nn.Module):
    """Self-attention, (B, C, H, W) -> (B, C, H, W), without transpositions and with at most 4 dimensions.

    PyTorch's own, decomposed, has arrays of five dimensions and a softmax that handles fully masked rows.

    Args:
        attention: layer whose weights it takes.
    """

    def __init__(self, attention: SelfAttention) -> None:
        super().__init__()
        self.head_dim = attention.head_dim
        self.qkv, self.proj = pointwise(attention.qkv), pointwise(attention.proj)

    def forward(self, x: Tensor) -> Tensor:
        batch, channels, height, width = x.shape
        heads = (batch, channels // self.head_dim, self.head_dim, height * width)
        q, k, v = (part.reshape(heads) for part in self.qkv(x).chunk(3, 1))
        weights = ((q * self.head_dim**-0.5).transpose(2, 3) @ k).softmax(3)
        return self.proj((v @ weights.transpose(2, 3)).reshape(x.shape))


def pointwise(linear: nn.Linear) -> nn.Conv2d:
    """Return a linear layer as a 1x1 convolution for (B, C, H, W) arrays."""
    conv = nn.Conv2d(
        linear.in_features, linear.out_features, 1, bias=linear.bias is not None, dtype=linear.weight.dtype
    )
    state = linear.state_dict()
    conv.load_state_dict({**state, "weight": state["weight"][:, :, None, None]})
    return conv


def with_plain_attention(module: Exportable) -> Exportable:
    """Return a copy in which every SelfAttention is a PlainAttention."""
    copied = copy.deepcopy(module)
    for parent in list(copied.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, SelfAttention):
                setattr(parent, name, PlainAttention(child).eval())
    return copied
