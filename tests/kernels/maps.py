"""Random maps and weights, and how exact an output is."""

from __future__ import annotations

import torch
from torch import Tensor, nn

# Where kernels run: on a GPU where there is one, else in Triton's interpreter.
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def noise(*shape: int, dtype: torch.dtype = torch.float16, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(DEVICE, dtype)


def noisy(module: nn.Module, dtype: torch.dtype = torch.float16, seed: int = 0) -> nn.Module:
    """The module with random weights that keep a map's scale, in eval mode."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            fan_in = parameter[0].numel() if parameter.ndim > 1 else 4
            parameter.copy_(torch.randn(parameter.shape, generator=generator) / fan_in**0.5)
    return module.to(DEVICE, dtype).requires_grad_(False).eval()


def error(output: Tensor, reference: Tensor) -> float:
    """Norm of the difference over that of the reference; NaN where the output has one."""
    return float((output.detach().double() - reference.detach()).norm() / reference.detach().norm())


# What rounding the exact output once costs, with a tenth to spare.
ROUNDING = {torch.float16: 1.1 * 2**-11 / 3**0.5, torch.bfloat16: 1.1 * 2**-8 / 3**0.5}
