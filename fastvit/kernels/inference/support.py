"""Where kernels run, and which."""

from __future__ import annotations

from importlib.util import find_spec

import torch

from fastvit.kernels.inference import nvrtc

PRECISIONS = {"fp16": torch.float16, "bf16": torch.bfloat16}
# Ampere: bfloat16, asynchronous copies, max.NaN.
_CAPABILITY = (8, 0)


def unsupported(device: torch.device, dtype: torch.dtype) -> str | None:
    """None where kernels take maps of a device and precision, else why not, in one sentence."""
    if device.type != "cuda":
        return f"kernels are for NVIDIA GPUs, this is {device.type}"
    if torch.version.hip:
        return "kernels are for NVIDIA GPUs, this is one of AMD's"
    if dtype not in PRECISIONS.values():
        return f"kernels compute in float16 and bfloat16, this is {str(dtype).removeprefix('torch.')}"
    capability = torch.cuda.get_device_capability(device)
    if capability < _CAPABILITY:
        return (
            f"kernels need compute capability 8.0 or newer, {torch.cuda.get_device_name(device)} has %d.%d" % capability
        )
    if find_spec("triton") is None:
        return "Triton is not installed"
    return None


def available_kernels(device: torch.device) -> tuple[str, ...]:
    """Beside PyTorch's, where `unsupported` has no objection."""
    if nvrtc.missing():
        return ("triton",)
    # Hopper's matrix instructions are in no other GPU, newer ones included.
    hopper = torch.cuda.get_device_capability(device) == (9, 0)
    return ("cuda", "hopper", "triton") if hopper else ("cuda", "triton")
