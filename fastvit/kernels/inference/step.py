"""Step of a fused network on NHWC maps: the kernels that can compute it, and its least cost."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor


@dataclass(frozen=True)
class Choice:
    """Kernel with the options of its launch.

    Attributes:
        kernel: "torch", "triton", "cuda", "hopper" (CUDA C++ for Hopper GPUs only), or "two" (two Triton kernels).
        config: name and value of each option of the launch, such as block sizes and number of warps.
    """

    kernel: str
    config: tuple[tuple[str, int], ...] = ()

    @classmethod
    def of(cls, kernel: str, **config: int) -> Choice:
        """Return a choice with options given as keyword arguments."""
        return cls(kernel, tuple(config.items()))

    @property
    def options(self) -> dict[str, int]:
        """Options of the launch as a dict."""
        return dict(self.config)

    def to_dict(self) -> dict[str, Any]:
        """Return the choice as a dict for JSON."""
        return {"kernel": self.kernel, **self.options}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Choice:
        """Return the choice that `to_dict` has written."""
        return cls.of(str(data["kernel"]), **{name: int(value) for name, value in data.items() if name != "kernel"})

    def __str__(self) -> str:
        return " ".join([self.kernel, *(f"{name}={value}" for name, value in self.config)])


TORCH = Choice("torch")


@dataclass(frozen=True)
class Cost:
    """Least cost of a step, for any implementation.

    Attributes:
        bytes: memory traffic when every input is read once and every output is written once.
        macs: multiply-accumulates that matrix units can compute.
        fmas: multiply-accumulates that they cannot, computed in float32 by the ordinary units.
    """

    bytes: int
    macs: int = 0
    fmas: int = 0


class Step(ABC):
    """Function of one map, and of a residual map that is added if the step ends a branch.

    Maps are (B, H, W, C), contiguous, in float16 or bfloat16. Input maps are never overwritten.
    """

    def run(self, x: Tensor, residual: Tensor | None, choice: Choice) -> Tensor:
        """Compute the output with one kernel.

        Args:
            x: input map.
            residual: map that the step adds, or None.
            choice: kernel and options of its launch.
        """
        if choice.kernel == "torch":
            return self.torch(x, residual)
        return self.launch(x, residual, choice)

    @property
    @abstractmethod
    def name(self) -> str:
        """Name of the computation with its channels and kernel sizes; steps of equal names have equal costs."""

    @abstractmethod
    def torch(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        """Compute the output in PyTorch, on any device and in any dtype.

        This is the reference for the kernels, and it is used where no kernel is faster.
        """

    @abstractmethod
    def cost(self, x: Tensor) -> Cost:
        """Return the least cost for a map of the shape and dtype of x."""

    def choices(self, x: Tensor, kernels: Iterable[str]) -> list[Choice]:
        """Return launches of these kernels that may be the fastest for such a map, the likeliest first.

        PyTorch is not among them.
        """
        return []

    def launch(self, x: Tensor, residual: Tensor | None, choice: Choice) -> Tensor:
        """Compute the output with a kernel of this package.

        Args:
            x: input map.
            residual: map that the step adds, or None.
            choice: kernel and options of its launch.

        Raises:
            NotImplementedError: the step does not have this kernel.
        """
        raise NotImplementedError(f"{self.name} has no kernel {choice.kernel}")


def nchw(x: Tensor) -> Tensor:
    """Return an NHWC map as an NCHW view, in memory format channels_last."""
    return x.permute(0, 3, 1, 2)


def nhwc(x: Tensor) -> Tensor:
    """Return an NCHW map as NHWC; it is copied if it is not in memory format channels_last."""
    return x.permute(0, 2, 3, 1).contiguous()
