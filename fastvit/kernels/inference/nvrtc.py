"""CUDA C++ kernels that are compiled at run time by NVRTC, which is installed with PyTorch.

Nothing is built when fastvit is installed. NVRTC and the driver are called through NVIDIA's own bindings (the package
cuda-bindings, which PyTorch needs on Linux). Compiling needs no GPU.
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

# Types of kernel arguments.
POINTER, INT32, INT64 = ctypes.c_void_p, ctypes.c_int, ctypes.c_longlong


def missing() -> str | None:
    """Return why CUDA C++ cannot be compiled, in one sentence; None if it can."""
    try:
        found = find_spec("cuda.bindings.nvrtc") and find_spec("cuda.bindings.driver")
    except ModuleNotFoundError:
        found = None
    if not found:
        return "the package cuda-bindings is not installed"
    try:
        _version()
    except Exception as error:  # the bindings raise errors of many types
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
    """Compile CUDA C++ for one architecture.

    Args:
        source: source text; it may not include any header.
        arch: real architecture, such as "sm_90"; not a virtual one.
        verbose: also log the registers and spills of each kernel.

    Returns:
        The machine code (cubin), and the log of the compiler.

    Raises:
        RuntimeError: the source has errors, or the compiler does not support the architecture.
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
    """Return the machine code of `compile_cuda`, from the cache on disk if it is there.

    If the cache cannot be written, the next process compiles again.
    """
    digest = hashlib.sha256(f"{_version()} {arch} {source}".encode()).hexdigest()
    path = cache_folder() / "kernels" / f"{digest[:32]}.cubin"
    if (kept := _kept(path)) is not None:
        return kept
    code, _ = compile_cuda(source, arch)
    with suppress(UserError), atomic(path) as part:
        part.write_bytes(code + hashlib.sha256(code).digest())
    return code


def _kept(path: Path) -> bytes | None:
    """Return the machine code that `compiled` wrote; None if the file is missing or corrupt."""
    try:
        content = path.read_bytes()
    except OSError:
        return None
    code, digest = content[:-32], content[-32:]
    return code if hashlib.sha256(code).digest() == digest else None


class Kernel:
    """CUDA C++ kernel that is loaded on one GPU.

    Args:
        source: complete source text of the kernel.
        name: name of the kernel function, declared extern "C".
        device: index of the GPU.
        shared: dynamic shared memory of a block, in bytes.
        arch: architecture to compile for; by default "sm_XY" for the compute capability X.Y of the GPU.

    Raises:
        RuntimeError: the kernel cannot be compiled or loaded.
    """

    def __init__(self, source: str, name: str, device: int, shared: int, arch: str | None = None) -> None:
        from cuda.bindings import driver

        self._driver, self._shared = driver, shared
        major, minor = torch.cuda.get_device_capability(device)
        code = compiled(source, arch or f"sm_{major}{minor}")
        with torch.cuda.device(device):
            torch.cuda.current_stream().synchronize()  # creates the GPU's context if needed, and makes it current
            self._module = self._checked(driver.cuModuleLoadData(code))
            self._function = self._checked(driver.cuModuleGetFunction(self._module, name.encode()))
            attribute = driver.CUfunction_attribute.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
            self._checked(driver.cuFuncSetAttribute(self._function, attribute, shared))

    def __call__(self, grid: tuple[int, int], threads: int, arguments: tuple[Any, ...], types: tuple[Any, ...]) -> None:
        """Launch on the current stream of the current GPU.

        Args:
            grid: number of blocks in x and y.
            threads: number of threads of a block.
            arguments: values and addresses that the kernel takes.
            types: POINTER, INT32 or INT64 for each argument.

        Raises:
            RuntimeError: the driver rejects the launch.
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
