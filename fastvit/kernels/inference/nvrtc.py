"""CUDA C++ compiled when it is needed, by the compiler library that PyTorch brings along: nothing is built at install.

Both halves of it, NVRTC and the driver, are reached through NVIDIA's own bindings (the package cuda-bindings, which
PyTorch needs on Linux). Compiling needs no GPU.
"""

from __future__ import annotations

import ctypes
import hashlib
from contextlib import suppress
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from fastvit.errors import UserError
from fastvit.files import atomic, cache_folder

# Of the arguments that a kernel takes.
POINTER, INT32, INT64 = ctypes.c_void_p, ctypes.c_int, ctypes.c_longlong


def missing() -> str | None:
    """None where CUDA C++ can be compiled, else why not, in one sentence."""
    try:
        found = find_spec("cuda.bindings.nvrtc") and find_spec("cuda.bindings.driver")
    except ModuleNotFoundError:
        found = None
    if not found:
        return "the package cuda-bindings is not installed"
    try:
        _version()
    except Exception as error:  # the bindings raise what the loader of their library says
        return f"NVRTC cannot be loaded: {error}"
    return None


@cache
def _version() -> tuple[int, int]:
    from cuda.bindings import nvrtc

    error, major, minor = nvrtc.nvrtcVersion()
    if error.value:
        raise RuntimeError(f"NVRTC returned {error.name}")
    return int(major), int(minor)


def compile_cuda(source: str, arch: str, verbose: bool = False) -> tuple[bytes, str]:
    """Machine code of a source for an architecture such as "sm_90", and what the compiler said.

    Args:
        source: it may include nothing.
        arch: real, not virtual.
        verbose: have the compiler tell registers and spills of each kernel.

    Raises:
        RuntimeError: the compiler found mistakes, or does not know the architecture.
    """
    from cuda.bindings import nvrtc

    error, program = nvrtc.nvrtcCreateProgram(source.encode(), b"kernels.cu", 0, [], [])
    _expect(error)
    try:
        options = [f"--gpu-architecture={arch}".encode(), b"--std=c++17"]
        if verbose:
            options += [b"--ptxas-options=-v"]
        (failed,) = nvrtc.nvrtcCompileProgram(program, len(options), options)
        error, size = nvrtc.nvrtcGetProgramLogSize(program)
        _expect(error)
        log = b" " * size
        _expect(*nvrtc.nvrtcGetProgramLog(program, log))
        said = log.rstrip(b"\0 \n").decode()
        if failed.value:
            raise RuntimeError(f"{failed.name} for {arch}: {said}")
        error, size = nvrtc.nvrtcGetCUBINSize(program)
        _expect(error)
        code = b" " * size
        _expect(*nvrtc.nvrtcGetCUBIN(program, code))
        return code, said
    finally:
        nvrtc.nvrtcDestroyProgram(program)


def compiled(source: str, arch: str) -> bytes:
    """`compile_cuda`, kept on disk; a disk that cannot be written to costs time, nothing else."""
    digest = hashlib.sha256(f"{_version()} {arch} {source}".encode()).hexdigest()
    path = cache_folder() / "kernels" / f"{digest[:32]}.cubin"
    if (kept := _kept(path)) is not None:
        return kept
    code, _ = compile_cuda(source, arch)
    with suppress(UserError), atomic(path) as part:
        part.write_bytes(code + hashlib.sha256(code).digest())
    return code


def _kept(path: Path) -> bytes | None:
    """Machine code that `compiled` wrote; None where it cannot be read or is damaged."""
    try:
        content = path.read_bytes()
    except OSError:
        return None
    code, digest = content[:-32], content[-32:]
    return code if hashlib.sha256(code).digest() == digest else None


class Kernel:
    """A kernel on one GPU, ready to be launched.

    Args:
        source: of the kernel, and of nothing else that is needed.
        name: of its entry, declared extern "C".
        device: index of the GPU.
        shared: bytes of dynamic shared memory that a block gets.
        arch: the architecture, where it is not the plain one of the GPU.
    """

    def __init__(self, source: str, name: str, device: int, shared: int, arch: str | None = None) -> None:
        from cuda.bindings import driver

        self._driver, self._shared = driver, shared
        major, minor = torch.cuda.get_device_capability(device)
        code = compiled(source, arch or f"sm_{major}{minor}")
        with torch.cuda.device(device):
            torch.cuda.current_stream().synchronize()  # makes sure that the GPU's context is there, and current
            self._module = self._checked(driver.cuModuleLoadData(code))
            self._function = self._checked(driver.cuModuleGetFunction(self._module, name.encode()))
            attribute = driver.CUfunction_attribute.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
            self._checked(driver.cuFuncSetAttribute(self._function, attribute, shared))

    def __call__(self, grid: tuple[int, int], threads: int, arguments: tuple[Any, ...], types: tuple[Any, ...]) -> None:
        """Launch on the current stream of the current GPU.

        Args:
            grid: blocks in x and y.
            threads: a block.
            arguments: numbers and addresses.
            types: POINTER, INT32 or INT64 of each.
        """
        stream = torch.cuda.current_stream().cuda_stream
        self._checked(
            self._driver.cuLaunchKernel(
                self._function, *grid, 1, threads, 1, 1, self._shared, stream, (arguments, types), 0
            )
        )

    def _checked(self, result: tuple[Any, ...]) -> Any:
        error, *values = result
        if error.value:
            raise RuntimeError(f"the CUDA driver returned {error.name}")
        return values[0] if values else None


def _expect(error: Any) -> None:
    if error.value:
        raise RuntimeError(f"NVRTC returned {error.name}")
