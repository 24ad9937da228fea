"""The Triton kernels of training without a GPU: run in Triton's interpreter, and compiled for one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton", reason="Triton comes with torch for Linux")


def test_in_the_interpreter() -> None:
    """In a process of its own: Triton looks for the variable when a kernel is defined."""
    tests = Path(__file__).with_name("interpreted_training.py")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tests)]
    environment = {**os.environ, "TRITON_INTERPRET": "1", "FASTVIT_INTERPRET": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tests.parents[2])
    assert done.returncode == 0, done.stdout[-4000:]
    assert " passed" in done.stdout


def test_the_environment_is_read_at_the_first_use() -> None:
    """Importing decides nothing."""
    code = (
        "import os, torch, fastvit.collapse\n"
        "from fastvit.kernels.training import depthwise, dispatch\n"
        "os.environ.update(TRITON_INTERPRET='1', FASTVIT_INTERPRET='1')\n"
        "x = torch.ones(1, 2, 3, 3)\n"
        "print(dispatch.use_triton(x), depthwise.depthwise_conv(x, torch.ones(2, 1, 3, 3), 1)[0, 0, 1].tolist())"
    )
    environment = {name: value for name, value in os.environ.items() if not name.endswith("_INTERPRET")}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert done.stdout == "True [6.0, 9.0, 6.0]\n", done.stderr[-4000:]


@pytest.mark.slow
def test_they_compile_for_a_gpu() -> None:
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    command = [sys.executable, "-m", "tests.kernels.compile_training"]
    root = Path(__file__).parents[2]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=root)
    assert done.stdout == "compiled\n", done.stderr[-4000:]
