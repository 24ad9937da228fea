"""Kernels in CUDA C++ without a GPU: run on the CPU by way of a C++ compiler, and compiled to a GPU's machine code."""

from __future__ import annotations

import ctypes
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from fastvit.kernels.inference import nvrtc
from fastvit.kernels.inference.cuda_text import TYPES

HEADERS = Path(__file__).parent


def host_library(header: str, text: str, path: Path, dtype: torch.dtype = torch.float16) -> ctypes.CDLL:
    """C++ that stands behind one of the headers beside this, as a library; skips where there is no compiler.

    Args:
        header: what the kernels in the text need of a GPU.
        text: kernels, in namespaces, and functions declared extern "C" that launch them.
        path: of the library; a name is loaded once in a process.
        dtype: of the maps, for headers that have the matrix units.
    """
    if shutil.which("g++") is None:
        pytest.skip("there is no C++ compiler")
    source = path.with_suffix(".cpp")
    source.write_text(f'#define NUMBER {TYPES[dtype][0]}\n#include "{HEADERS / header}"\n{text}')
    command = ["g++", "-std=c++20", "-O2", "-mf16c", "-shared", "-fPIC", "-pthread"]
    subprocess.run([*command, "-o", path, source], check=True)
    return ctypes.CDLL(str(path))


def in_namespace(name: str, kernel: str) -> str:
    """The text of a kernel as C++ for the CPU: blocks of threads share what the header has."""
    text = re.sub(r"extern __shared__ \w+ \w+\[\];", "", kernel.replace('extern "C" ', ""))
    return f"namespace {name} {{\n{text}\n}}\n"


@dataclass(frozen=True)
class MachineCode:
    """What NVIDIA's compiler made of a kernel.

    Attributes:
        registers: of a thread.
        spilled: bytes of a thread that found no room in them.
        serialized: the matrix units wait where they were to run beside something else.
    """

    registers: int
    spilled: int
    serialized: bool


def machine_code(text: str, arch: str) -> MachineCode:
    """Compile for a GPU; skips where NVRTC is missing."""
    if reason := nvrtc.missing():
        pytest.skip(reason)
    code, said = nvrtc.compile_cuda(text, arch, verbose=True)
    assert code.startswith(b"\x7fELF")
    registers, spilled = re.search(r"Used (\d+) registers", said), re.search(r"(\d+) bytes spill stores", said)
    assert registers
    assert spilled
    return MachineCode(int(registers[1]), int(spilled[1]), "serialized" in said)
