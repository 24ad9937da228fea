"""A piece of a fused network on NHWC maps, the kernels that can compute it, and the least that it costs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor


@dataclass(frozen=True)
class Choice:
    """A kernel and how it is launched.

    Attributes:
        kernel: "torch", "triton", "cuda", or "hopper", which is CUDA C++ for that architecture alone.
        config: of the launch: block sizes, warps, ....
    """

    kernel: str
    config: tuple[tuple[str, int], ...] = ()

    @classmethod
    def of(cls, kernel: str, **config: int) -> Choice:
        return cls(kernel, tuple(config.items()))

    @property
    def options(self) -> dict[str, int]:
        return dict(self.config)

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {"kernel": self.kernel, **self.options}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Choice:
        """The inverse of `to_dict`."""
        return cls.of(str(data["kernel"]), **{name: int(value) for name, value in data.items() if name != "kernel"})

    def __str__(self) -> str:
        return " ".join([self.kernel, *(f"{name}={value}" for name, value in self.config)])


TORCH = Choice("torch")


@dataclass(frozen=True)
class Cost:
    """The least that a step needs, whoever computes it.

    Attributes:
        bytes: to read every input and write every output once.
        macs: multiply-accumulates that a matrix unit can do.
        fmas: those that none can, in float32 on the ordinary ones.
    """

    bytes: int
    macs: int = 0
    fmas: int = 0


class Step(ABC):
    """A function of one map, and of a second one that is added where the step ends a branch.

    Maps are (B, H, W, C), contiguous, in float16 or bfloat16; they are never written to.
    """

    def run(self, x: Tensor, residual: Tensor | None, choice: Choice) -> Tensor:
        """The output, by the kernel chosen."""
        if choice.kernel == "torch":
            return self.torch(x, residual)
        return self.launch(x, residual, choice)

    @property
    @abstractmethod
    def name(self) -> str:
        """What it computes, with all of its shape that is no map's: steps of equal names cost the same."""

    @abstractmethod
    def torch(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        """The same in PyTorch: the reference, and what is run where no kernel is faster. Any device and precision."""

    @abstractmethod
    def cost(self, x: Tensor) -> Cost:
        """For a map like x."""

    def choices(self, x: Tensor, kernels: Iterable[str]) -> list[Choice]:
        """Launches of these kernels that may be the fastest for such a map, the likeliest first; not PyTorch's."""
        return []

    def launch(self, x: Tensor, residual: Tensor | None, choice: Choice) -> Tensor:
        """By a kernel of ours."""
        raise NotImplementedError(f"{self.name} has no kernel {choice.kernel}")


def nchw(x: Tensor) -> Tensor:
    """An NHWC map as PyTorch's convolutions take it: a view, in memory format channels_last."""
    return x.permute(0, 3, 1, 2)


def nhwc(x: Tensor) -> Tensor:
    """The inverse; copies where a convolution answered in another format."""
    return x.permute(0, 2, 3, 1).contiguous()
