"""Temporary folders that go with what owns them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

OWNERS = {"TemporaryFolder": "fastvit.files", "UnreadableLog": "fastvit.data.unreadable"}
CODE = """
import os, sys
from {module} import {name}
owner = {name}()
print(owner.path if owner.path.is_dir() else owner.path.parent, flush=True)
"""
# How the owner ends: collected, with the process, and in a process of its own that ends first.
ENDS = {
    "collected": "folder = owner.path; del owner; assert not folder.exists()",
    "exit": "",
    "forked": "if os.fork() == 0: sys.exit()\nos.wait(); assert owner.path.exists()",
}


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("name", OWNERS)
def test_a_temporary_folder_goes_with_its_owner_alone(name: str, end: str, tmp_path: Path) -> None:
    code = CODE.format(module=OWNERS[name], name=name) + ENDS[end]
    command = [sys.executable, "-W", "error::ResourceWarning", "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"TMPDIR": str(tmp_path)})
    assert (done.returncode, done.stderr) == (0, "")
    folder = Path(done.stdout.strip())
    assert folder.parent == tmp_path
    assert not folder.exists()
