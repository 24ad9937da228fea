"""Compile a kernel for a GPU without one, and print what came out of it as JSON. A process of its own: no interpreter.

python -m tests.kernels.compile_triton feed_forward 90 '{"CHANNELS": 64, ...}' num_warps=4 num_stages=3 fp16
"""

from __future__ import annotations

import importlib
import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

POINTERS = {
    "depthwise": {"w_ptr": "*fp32", "b_ptr": "*fp32"},
    "stem": {"w2_ptr": "*fp32", "b2_ptr": "*fp32"},
}


def compile_kernel(name: str, capability: int, constants: dict[str, int], dtype: str, **options: int) -> dict[str, Any]:
    """Registers, spilled bytes, shared memory, and whether Hopper's matrix instructions are in it."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    kernel = getattr(importlib.import_module(f"fastvit.kernels.inference.device.{name}"), name)
    signature = {
        argument: "constexpr"
        if argument in constants
        else POINTERS.get(name, {}).get(argument, f"*{dtype}")
        if argument.endswith("_ptr")
        else "i32"
        for argument in kernel.arg_names
    }
    # Tensors of PyTorch are aligned to 16 bytes and more.
    aligned = {
        (i,): [["tt.divisibility", 16]] for i, argument in enumerate(kernel.arg_names) if argument.endswith("_ptr")
    }
    source = ASTSource(kernel, signature, constants, aligned)
    done = triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)
    resources = _resources(done.asm["cubin"])
    return {**resources, "shared": done.metadata.shared, "wgmma": "wgmma" in done.asm["ptx"]}


def _resources(cubin: bytes) -> dict[str, int]:
    from triton.backends import nvidia

    tool = Path(nvidia.__file__).parent / "bin" / "cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        said = subprocess.run(
            [tool, "--dump-resource-usage", file.name], capture_output=True, text=True, check=True
        ).stdout
    found = {name.lower(): int(value) for name, value in re.findall(r"(REG|STACK|LOCAL):(\d+)", said)}
    return {"registers": found["reg"], "stack": found["stack"], "local": found["local"]}


def main(jobs: list[dict[str, Any]]) -> None:
    for job in jobs:
        print(json.dumps({"job": job, **compile_kernel(**job)}), flush=True)


if __name__ == "__main__":
    main(json.loads(sys.stdin.read()))
