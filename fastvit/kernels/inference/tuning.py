"""Choice of the fastest kernel for a step and a shape: timed once per GPU model, then cached on disk."""

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

# Choices that are shipped with the package: one file per GPU model, in the format of the cache.
SHIPPED = Path(__file__).parent / "tuned"
# Number of threads that compile choices; the compilers release Python's lock.
_COMPILERS = 8


def like(x: Tensor) -> tuple[int, ...]:
    """Return the rounded shape under which a choice is stored.

    The batch is rounded up to the next power of two, and height and width to three significant bits. This leaves few
    shapes, and keeps images of 224 and 256 pixels apart. The channels stay as they are.
    """
    batch = 1 << (max(x.shape[0], 1) - 1).bit_length()
    steps = (1 << max(side.bit_length() - 3, 0) for side in x.shape[1:-1])
    sides = (-(-side // step) * step for side, step in zip(x.shape[1:-1], steps, strict=True))
    return (batch, *sides, x.shape[-1])


def key(step: Step, x: Tensor) -> str:
    """Return the name under which a choice is stored: the step, the rounded shape of the map and its dtype."""
    batch, *sides, _ = like(x)
    size = "x".join(map(str, sides)) or "1"
    return f"{step.name} @ {size}, batch {batch}, {str(x.dtype).removeprefix('torch.')}"


class Tuner:
    """Chooser of kernels for one GPU.

    Choices come from the cache on disk, or from the table that is shipped for this GPU model. A choice that is in
    neither is timed, which takes a second or two per step, and written to the cache.

    Args:
        device: GPU that the kernels run on.
        time: if False, an unknown choice is guessed instead of timed; it may be slower than PyTorch.

    Attributes:
        path: cache file for this GPU model and these versions.
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
        """Return the fastest choice that runs for maps of this shape.

        Args:
            step: step to compute.
            x: input map, on the GPU of the tuner.
            residual: map that the step adds, or None.
        """
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
        """Add the new choices to the cache file. If the file cannot be written, the next process times them again."""
        if not self._new:
            return
        known = read_table(self.path) | self._new
        with suppress(UserError):
            write_text(self.path, json.dumps({name: c.to_dict() for name, c in sorted(known.items())}, indent=1) + "\n")
        self._new = {}


def first_that_runs(step: Step, x: Tensor, residual: Tensor | None, choices: Iterable[Choice]) -> Choice:
    """Return the first choice that runs here, or PyTorch if none does.

    Stored and guessed choices may fail, because they were found with another compiler or driver.

    Args:
        step: step to compute.
        x: input map.
        residual: map that the step adds, or None.
        choices: choices to try, in order.

    Raises:
        torch.OutOfMemoryError: the GPU has not enough memory.
    """
    for choice in choices:
        try:
            with torch.no_grad():
                step.run(x, residual, choice)
        except torch.OutOfMemoryError:
            raise
        except Exception:  # compilers and the driver raise errors of many types
            continue
        return choice
    return TORCH


def compile_all(step: Step, x: Tensor, residual: Tensor | None, choices: list[Choice]) -> None:
    """Run each choice once, so that its kernel is compiled; several threads compile at the same time.

    Failures are ignored here, because a choice that fails also fails when it is timed.

    Args:
        step: step to compute.
        x: input map.
        residual: map that the step adds, or None.
        choices: choices to compile.
    """

    def once(choice: Choice) -> None:
        try:
            with torch.no_grad(), torch.cuda.device(x.device):
                step.run(x, residual, choice)
        except Exception:  # compilers raise errors of many types
            return

    with ThreadPoolExecutor(_COMPILERS) as pool:
        list(pool.map(once, choices))
    torch.cuda.synchronize(x.device)


def launchable(table: dict[str, Choice], kernels: Iterable[str]) -> dict[str, Choice]:
    """Return the choices that need only these kernels: a table may come from a machine with NVRTC, for example."""
    needed = {"torch": (), "two": ("triton",)}
    return {n: c for n, c in table.items() if set(needed.get(c.kernel, (c.kernel,))) <= set(kernels)}


def read_table(path: Path) -> dict[str, Choice]:
    """Return the choices of a file by their keys; an empty dict if the file is missing or is not such a table."""
    try:
        table: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return {name: Choice.from_dict(choice) for name, choice in table.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def _versions() -> str:
    return f"fastvit{__version__}-torch{torch.__version__.partition('+')[0]}-triton{metadata.version('triton')}"
