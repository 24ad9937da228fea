"""The reference pages agree with the code."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import fastvit
from fastvit.tasks.table import TASKS
from fastvit.training.fields import recipe_fields
from fastvit.training.recipe import parse_recipe
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


def entries() -> set[str]:
    """The names that the pages of the Python API and of exceptions describe."""
    reference = ROOT / "docs" / "reference"
    pages = [*sorted((reference / "python").glob("*.md")), reference / "exceptions.md"]
    text = "\n".join(page.read_text(encoding="utf-8") for page in pages)
    return set(re.findall(r"^(?:::: |## )(fastvit(?:\.\w+)+)", text, re.MULTILINE))


def test_public_names_have_an_entry() -> None:
    public = {f"fastvit.{name}" for name in fastvit.__all__ if name != "__version__"}
    assert not public - entries()


def test_names_in_examples_have_an_entry() -> None:
    """An example imports public names: they have an entry, or their module has one. The log describes experiments."""
    known, missing = entries(), set()
    for page in {ROOT / "README.md", *(ROOT / "docs").rglob("*.md")} - {ROOT / "docs" / "performance-log.md"}:
        found = re.findall(r"^from (fastvit[\w.]*) import (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
        imported = {(module, name.strip()) for module, names in found for name in names.split(",")}
        missing |= {f"{module}.{name}" for module, name in imported if module not in known} - known
    assert not missing


def test_fields_in_the_glossary_exist() -> None:
    fields = {field.name for task in TASKS for field in recipe_fields(parse_recipe(["--task", task]))}
    sections = {name.partition(".")[0] for name in fields if "." in name}
    text = (ROOT / "docs" / "reference" / "glossary.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`(\w+(?:\.\w+)+)[`:]", text))
    assert not {name for name in named if name.partition(".")[0] in sections} - fields
