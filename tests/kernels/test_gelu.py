"""The GELU of the kernels against the exact one, on every float16 there is."""

from __future__ import annotations

import numpy as np
import torch
from scipy.special import ndtr

from fastvit.kernels.inference.gelu import gelu


def every_float16() -> torch.Tensor:
    return torch.from_numpy(np.arange(2**16, dtype=np.uint16).view(np.float16)).float()


def places(halves: np.ndarray) -> np.ndarray:
    """Number of each float16 in their order, so that neighbors differ by 1; -0 and 0 have the same."""
    bits = halves.view(np.int16).astype(np.int32)
    return np.where(bits >= 0, bits, -(bits & 0x7FFF))


def test_every_float16_gives_the_nearest_output_or_its_neighbor() -> None:
    x = every_float16()
    finite = x[x.isfinite()]
    exact = finite.double().numpy() * ndtr(finite.double().numpy())
    ours = gelu(finite).numpy()
    apart = np.abs(places(ours.astype(np.float16)) - places(exact.astype(np.float16)))
    assert len(finite) == 63488
    assert apart.max() <= 1
    assert (apart > 0).mean() < 0.05
    # PyTorch's own, in float32, is further off where 1 + erf cancels.
    torchs = torch.nn.functional.gelu(finite).numpy().astype(np.float16)
    assert apart.max() <= np.abs(places(torchs) - places(exact.astype(np.float16))).max()


def test_beyond_float16_and_what_is_no_number() -> None:
    x = torch.tensor([1e6, 3e38, float("inf"), -1e6, -3e38])
    assert gelu(x)[:3].tolist() == x[:3].tolist()
    assert (gelu(x)[3:].half() == 0).all()
    assert gelu(torch.tensor([float("nan")])).isnan().all()
    assert gelu(torch.zeros(1)).item() == 0


def test_bfloat16_gives_the_nearest_output_or_its_neighbor() -> None:
    """Where the output is a normal float16; below, the error that a float16 allows is large for a bfloat16."""
    x = torch.arange(2**16, dtype=torch.int32).to(torch.int16).view(torch.bfloat16)
    x = x[x.isfinite() & (x > -3.9) & (x.abs() > 1e-30)]
    exact = torch.from_numpy(x.double().numpy() * ndtr(x.double().numpy())).bfloat16()
    apart = (gelu(x.float()).bfloat16().view(torch.int16).int() - exact.view(torch.int16).int()).abs()
    assert apart.max() <= 1
