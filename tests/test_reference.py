"""The reference pages agree with the code."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from fastvit.variables import VARIABLES, read_variable

ROOT = Path(__file__).parent.parent


def test_written_pages_agree_with_the_code() -> None:
    """An interface that changes shows in review: in docs/reference/commands.md and the pages beside it."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "COLUMNS": "40"}
    command = [sys.executable, "scripts/write_reference.py", "--check"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_variables_are_read_through_their_table() -> None:
    readers = [
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "fastvit").rglob("*.py")
        if re.search(r"\bos\.(environ|getenv)\b", path.read_text(encoding="utf-8"))
    ]
    assert readers == ["fastvit/variables.py"]
    with pytest.raises(KeyError):
        read_variable("FASTVIT_UNKNOWN")


def test_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SLURM_NNODES", raising=False)
    assert read_variable("SLURM_NNODES", "1") == "1"
    monkeypatch.setenv("SLURM_NNODES", "2")
    assert read_variable("SLURM_NNODES", "1") == "2"
    assert all(text.endswith(".") for text in VARIABLES.values())
