"""Devices and dtypes that the kernels support."""

from __future__ import annotations

from importlib.util import find_spec

import torch

from fastvit.kernels.inference import nvrtc

PRECISIONS = {"fp16": torch.float16, "bf16": torch.bfloat16}
# Ampere: bfloat16, asynchronous copies, max.NaN.
_CAPABILITY = (8, 0)


def unsupported(device: torch.device, dtype: torch.dtype) -> str | None:
    """Return why the kernels do not support maps of a device and dtype, in one sentence; None if they do."""
    if device.type != "cuda":
        return f"the kernels need an NVIDIA GPU; the model is on {device.type}"
    if torch.version.hip:
        return "the kernels need an NVIDIA GPU; this one is from AMD"
    if dtype not in PRECISIONS.values():
        return f"the kernels need float16 or bfloat16; the model is in {str(dtype).removeprefix('torch.')}"
    capability = torch.cuda.get_device_capability(device)
    if capability < _CAPABILITY:
        return (
            f"the kernels need compute capability 8.0 or newer; {torch.cuda.get_device_name(device)} has %d.%d"
            % capability
        )
    if find_spec("triton") is None:
        return "Triton is not installed"
    return None


def available_kernels(device: torch.device) -> tuple[str, ...]:
    """Return the kinds of kernels, besides PyTorch's, that run on a GPU for which `unsupported` returns None."""
    if nvrtc.missing():
        return ("triton",)
    # No other GPU has Hopper's matrix instructions, not even newer ones.
    hopper = torch.cuda.get_device_capability(device) == (9, 0)
    return ("cuda", "hopper", "triton") if hopper else ("cuda", "triton")
