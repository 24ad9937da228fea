"""Steps that PyTorch computes fast enough, or that are rare: layer norms, squeeze-and-excitation, the classifier."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from fastvit.kernels.inference.step import Cost, Step, nchw, nhwc


class LayerNorm(Step):
    """Layer norm over the channels: (B, H, W, C) -> (B, H, W, C)."""

    def __init__(self, norm: nn.LayerNorm) -> None:
        self.norm = norm

    @property
    def name(self) -> str:
        return f"layer norm {self.norm.normalized_shape[0]}"

    def torch(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        norm = self.norm
        return F.layer_norm(x, norm.normalized_shape, norm.weight, norm.bias, norm.eps)

    def cost(self, x: Tensor) -> Cost:
        return Cost(2 * x.element_size() * x.numel())


class Mapped(Step):
    """Sequence of modules that take NCHW maps: (B, H, W, C) -> (B, H, W, C').

    Args:
        name: name of the step.
        modules: modules to run, in order.
    """

    def __init__(self, name: str, *modules: nn.Module) -> None:
        self._name, self.modules = name, modules

    @property
    def name(self) -> str:
        return self._name

    def torch(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        y = nchw(x)
        for module in self.modules:
            y = module(y)
        return nhwc(y)

    def cost(self, x: Tensor) -> Cost:
        return Cost(2 * x.element_size() * x.numel())


class Classify(Step):
    """Linear classifier: (B, C) -> (B, classes); without a head it returns the features."""

    def __init__(self, head: nn.Module) -> None:
        self.head = head

    @property
    def name(self) -> str:
        return f"linear {self.head.in_features}-{self.head.out_features}" if isinstance(self.head, nn.Linear) else "-"

    def torch(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        y: Tensor = self.head(x)
        return y

    def cost(self, x: Tensor) -> Cost:
        if not isinstance(self.head, nn.Linear):
            return Cost(0)
        out = self.head.out_features
        size = x.numel() + x.shape[0] * out + self.head.weight.numel()
        return Cost(x.element_size() * size, x.shape[0] * self.head.weight.numel())
