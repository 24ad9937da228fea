"""Choice of the device. Importing this module needs no torch."""

from __future__ import annotations

from typing import Literal

from fastvit.errors import UserError

Device = Literal["auto", "cpu", "cuda", "mps"]


def pick_device(name: str) -> str:
    """Return the name of a torch device.

    Args:
        name: "cuda", "mps", "cpu", or "auto" for the first of these that is available.

    Raises:
        UserError: the device is not available.
    """
    import torch

    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        return next(device for device, there in available.items() if there)
    if not available.get(name):
        there = " or ".join(device for device, is_there in available.items() if is_there)
        raise UserError(f"the device {name} is not available on this machine; use {there}")
    return name
