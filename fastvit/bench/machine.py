"""Measured peak performance of this machine, for the roofline."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from fastvit.errors import UserError


@dataclass(frozen=True)
class Machine:
    """Peak performance of the CPU or GPU that PyTorch runs on, with its current number of threads.

    Attributes:
        gflops: rate of a large matrix product, by precision ("fp32", "bf16"), in 1e9 operations per second; a
            multiply-add is two operations.
        copy_gbps: bytes read and written by a large copy, in 1e9 per second.
        threads: number of CPU threads of PyTorch.
    """

    gflops: dict[str, float]
    copy_gbps: float
    threads: int


# Seconds; a CPU that emulates bfloat16 needs many for one product.
PATIENCE = 3.0
# float16 has no fast matrix product on CPUs.
_DTYPES = {
    "cpu": {"fp32": torch.float32, "bf16": torch.bfloat16},
    "mps": {"fp32": torch.float32, "fp16": torch.float16},
    "cuda": {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16},
}


@contextmanager
def torch_threads(count: int | None) -> Iterator[None]:
    """Set the number of CPU threads of PyTorch for a block; None changes nothing.

    Raises:
        UserError: the number is below 1.
    """
    if count is not None and count < 1:
        raise UserError(f"threads must be at least 1, got {count}")
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def measure_machine(device: str = "cpu", size: int = 1024, megabytes: int = 128, rounds: int = 7) -> Machine:
    """Measure the peak performance: the best of some rounds, because other load can only make a round slower.

    Args:
        device: device of PyTorch.
        size: rows and columns of the matrices.
        megabytes: size of the copy.
        rounds: number of rounds of each.
    """
    gflops = {
        name: 2 * size**3 / _best(_product(size, dtype, device), rounds, device) / 1e9
        for name, dtype in _DTYPES[device].items()
    }
    source = torch.empty(megabytes * 2**18, device=device)
    target = torch.empty_like(source)
    seconds = _best(lambda: target.copy_(source), rounds, device)
    return Machine(gflops, 2 * source.numel() * 4 / seconds / 1e9, torch.get_num_threads())


def _product(size: int, dtype: torch.dtype, device: str) -> Callable[[], object]:
    a, b = (torch.randn(size, size, dtype=dtype, device=device) for _ in range(2))
    return lambda: a @ b


def _best(call: Callable[[], object], rounds: int, device: str) -> float:
    """Return the shortest time in seconds; the first round warms up, and no round starts after PATIENCE seconds."""
    times: list[float] = []
    for _ in range(rounds + 1):
        start = time.perf_counter()
        call()
        if device == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
        if sum(times) > PATIENCE:
            break
    return min(times[1:] or times)
