"""What a number is said to be measured with."""

from __future__ import annotations

import re
from importlib import metadata
from pathlib import Path

import pytest

import fastvit.environment
from fastvit.environment import commit, environment


def test_environment() -> None:
    found = environment()
    assert found["fastvit"] == fastvit.__version__
    assert found["timm"] == metadata.version("timm")
    assert int(found["torch threads"]) >= 1
    assert found["processor"]
    assert all(found.values())


def test_commit_of_a_checkout_only(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert re.fullmatch(r"([0-9a-f]{12,}(-dirty)?)?", commit())
    monkeypatch.setattr(fastvit.environment, "ROOT", tmp_path)
    assert commit() == ""
    (tmp_path / ".git").mkdir()
    assert commit() == "", "no repository, whatever its name"
