"""Which kernel is the fastest for a step and a shape: asked once for a kind of GPU, then remembered."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fastvit.errors import UserError
from fastvit.files import cache_folder, write_text
from fastvit.kernels.inference.step import TORCH, Choice, Step
from fastvit.kernels.inference.support import available_kernels
from fastvit.kernels.inference.timing import try_choices
from fastvit.version import __version__

# What was measured by us, a file a kind of GPU, in the format of the cache.
SHIPPED = Path(__file__).parent / "tuned"
# Choices are compiled by so many threads at once; the compilers let go of Python's lock.
_COMPILERS = 8


def like(x: Tensor) -> tuple[int, ...]:
    """The shape that stands for others: the batch up to the next power of two, the sides to three significant bits.

    Images of all sizes then come down to few, and those of 224 and 256 pixels stay apart.
    """
    batch = 1 << (max(x.shape[0], 1) - 1).bit_length()
    steps = (1 << max(side.bit_length() - 3, 0) for side in x.shape[1:-1])
    sides = (-(-side // step) * step for side, step in zip(x.shape[1:-1], steps, strict=True))
    return (batch, *sides, x.shape[-1])


def key(step: Step, x: Tensor) -> str:
    """What a choice depends on: the step, the map's shape, as `like` has it, and its precision."""
    batch, *sides, _ = like(x)
    size = "x".join(map(str, sides)) or "1"
    return f"{step.name} @ {size}, batch {batch}, {str(x.dtype).removeprefix('torch.')}"


class Tuner:
    """Chooses kernels on one GPU.

    Choices come from the cache on disk, then from the table that is shipped for this kind of GPU, else they are timed,
    which takes a second or two a step, and written to the cache.

    Args:
        device: a GPU.
        time: False takes the likeliest choice where none is known, which may be slower than PyTorch.
    """

    def __init__(self, device: torch.device, time: bool = True) -> None:
        self._device, self._time = device, time
        self._kernels = available_kernels(device)
        name = torch.cuda.get_device_name(device)
        self.path = cache_folder() / "kernels" / f"{_slug(name)}-{_versions()}-{'-'.join(self._kernels)}.json"
        known = read_table(SHIPPED / f"{_slug(name)}.json") | read_table(self.path)
        self._known = launchable(known, self._kernels)
        self._new: dict[str, Choice] = {}

    def choose(self, step: Step, x: Tensor, residual: Tensor | None) -> Choice:
        """The fastest choice for such a map, among those that run."""
        choices = step.choices(x, self._kernels)
        if not choices:
            return TORCH
        name = key(step, x)
        if name not in self._known and self._time:
            self._known[name] = self._new[name] = self._fastest(step, x, residual, choices)
        known = [self._known[name]] if name in self._known else choices
        return first_that_runs(step, x, residual, known)

    def _fastest(self, step: Step, x: Tensor, residual: Tensor | None, choices: list[Choice]) -> Choice:
        compile_all(step, x, residual, choices)
        timed = {t.choice: t.ms for t in try_choices(step, x, residual, [TORCH, *choices]) if t.ms is not None}
        return min(timed, key=lambda choice: timed[choice])

    def save(self) -> None:
        """Write what was found to the cache; what others wrote meanwhile stays. A disk that refuses costs time only."""
        if not self._new:
            return
        known = read_table(self.path) | self._new
        with suppress(UserError):
            write_text(self.path, json.dumps({name: c.to_dict() for name, c in sorted(known.items())}, indent=1) + "\n")
        self._new = {}


def first_that_runs(step: Step, x: Tensor, residual: Tensor | None, choices: Iterable[Choice]) -> Choice:
    """PyTorch where none does: what is known, or likely, was found elsewhere, with another compiler or driver."""
    for choice in choices:
        try:
            with torch.no_grad():
                step.run(x, residual, choice)
        except torch.OutOfMemoryError:
            raise
        except Exception:  # whatever compilers raise, and the driver
            continue
        return choice
    return TORCH


def compile_all(step: Step, x: Tensor, residual: Tensor | None, choices: list[Choice]) -> None:
    """Run each once, several at a time; one that fails fails again, and is heard, when it is timed."""

    def once(choice: Choice) -> None:
        try:
            with torch.no_grad(), torch.cuda.device(x.device):
                step.run(x, residual, choice)
        except Exception:  # whatever compilers raise
            return

    with ThreadPoolExecutor(_COMPILERS) as pool:
        list(pool.map(once, choices))
    torch.cuda.synchronize(x.device)


def launchable(table: dict[str, Choice], kernels: Iterable[str]) -> dict[str, Choice]:
    """Choices that need no other kernels than these: a table may come from where there was NVRTC, say."""
    needed = {"torch": (), "two": ("triton",)}
    return {n: c for n, c in table.items() if set(needed.get(c.kernel, (c.kernel,))) <= set(kernels)}


def read_table(path: Path) -> dict[str, Choice]:
    """Choices by key; none from a file that is not there, or not such a table."""
    try:
        table: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return {name: Choice.from_dict(choice) for name, choice in table.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def _versions() -> str:
    return f"fastvit{__version__}-torch{torch.__version__.partition('+')[0]}-triton{metadata.version('triton')}"
