"""Versions and hardware with which a figure was measured."""

from __future__ import annotations

import platform
import subprocess
from importlib import metadata
from pathlib import Path

import torch

from fastvit.version import __version__

PACKAGES = (
    *("torch", "torchvision", "timm", "lightning", "torchmetrics", "safetensors", "numpy", "pillow"),
    *("onnx", "onnxruntime", "coremltools", "litert-torch", "ai-edge-litert", "executorch", "openvino", "tensorrt"),
)
ROOT = Path(__file__).parent.parent


def environment() -> dict[str, str]:
    """Return the versions of installed packages, the commit of a checkout, and the hardware."""
    found = {"fastvit": __version__, "commit": commit(), "Python": platform.python_version()}
    found |= {name: _version(name) for name in PACKAGES}
    found |= {
        "system": platform.platform(),
        "processor": processor(),
        "torch threads": str(torch.get_num_threads()),
        "GPU": ", ".join(torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())),
        "CUDA": str(torch.version.cuda) if torch.cuda.is_available() else "",
    }
    return {name: value for name, value in found.items() if value}


def commit() -> str:
    """Return the commit of a checkout, with "-dirty" if files are changed; empty for an installed package."""
    if not (ROOT / ".git").exists():
        return ""
    command = ["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--exclude=*", "--abbrev=12"]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=20, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):  # git is not installed, or the folder belongs to another repository
        return ""


def processor() -> str:
    """Return the name of the processor, as the system reports it."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [line.partition(":")[2].strip() for line in cpuinfo.read_text().splitlines() if "model name" in line]
        if names:
            return f"{names[0]}, {len(names)} cores visible"
    return platform.processor() or platform.machine()


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""
