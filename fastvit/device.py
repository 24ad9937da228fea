"""Where to run. Importing this needs no torch."""

from __future__ import annotations

from typing import Literal

from fastvit.errors import UserError

Device = Literal["auto", "cpu", "cuda", "mps"]


def pick_device(name: str) -> str:
    """A torch device for "auto" (the best there is), "cpu", "cuda" or "mps".

    Raises:
        UserError: it is not there.
    """
    import torch

    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        return next(device for device, there in available.items() if there)
    if not available.get(name):
        there = " or ".join(device for device, is_there in available.items() if is_there)
        raise UserError(f"there is no {name} device here; use {there}")
    return name
