"""The notebooks: valid, with the outputs of the code that they contain, and without errors when they run."""

from __future__ import annotations

import ast
import base64
import io
import json
import re
import runpy
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

ROOT = Path(__file__).parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
# Where files lie on the machine of whoever ran a notebook.
PRIVATE_PATH = re.compile(r"(?<![\w.:/-])/(?:home|root|tmp|work|Users|usr|opt|var|private|mnt)/|\b[A-Z]:\\")
MOST_BYTES = 1_000_000

nbformat = pytest.importorskip("nbformat")
pytest.importorskip("nbclient")
pytest.importorskip("ipykernel")

SCRIPT = runpy.run_path(str(ROOT / "scripts" / "run_notebooks.py"))
every_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def kinds(notebook: Any) -> list[set[str]]:
    """What each code cell shows: text that was printed, and the MIME types of what was displayed."""
    return [
        {kind for output in cell.outputs for kind in output.get("data", {output.output_type: None})}
        for cell in SCRIPT["code_cells"](notebook)
    ]


def texts(content: Any) -> list[str]:
    """All strings in a notebook but for the bytes of pictures."""
    if isinstance(content, str):
        return [content]
    if isinstance(content, dict):
        return [text for key, value in content.items() if not key.startswith("image/") for text in (key, *texts(value))]
    return [text for value in content for text in texts(value)] if isinstance(content, list) else []


def test_there_are_three_and_the_docs_link_them() -> None:
    assert [path.stem for path in NOTEBOOKS] == ["backbone", "fine-tune", "first-steps"]
    page = (ROOT / "docs" / "notebooks.md").read_text()
    assert sorted(re.findall(r"/blob/main/notebooks/([\w-]+)\.ipynb\)", page)) == [path.stem for path in NOTEBOOKS]


@every_notebook
def test_it_is_valid_and_its_code_compiles(path: Path) -> None:
    notebook = SCRIPT["read"](path)
    nbformat.validate(notebook)
    for cell in SCRIPT["code_cells"](notebook):
        ast.parse(cell.source)


@every_notebook
def test_its_outputs_are_those_of_its_code(path: Path) -> None:
    """They were written by scripts/run_notebooks.py: every cell ran once, in order, without an error or a warning."""
    notebook = SCRIPT["read"](path)
    cells = SCRIPT["code_cells"](notebook)
    assert notebook.metadata[SCRIPT["CODE_DIGEST"]] == SCRIPT["code_digest"](notebook)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    assert "error" not in set().union(*kinds(notebook))
    assert not [text for text in texts(notebook) if re.search(r"\b\w*Warning:", text)]


@every_notebook
def test_its_outputs_are_small_and_name_no_machine(path: Path) -> None:
    assert path.stat().st_size < MOST_BYTES
    notebook = SCRIPT["read"](path)
    assert not [text for text in texts(json.loads(path.read_text())) if PRIVATE_PATH.search(text)]
    pictures = [
        content
        for cell in SCRIPT["code_cells"](notebook)
        for output in cell.outputs
        for kind, content in output.get("data", {}).items()
        if kind.startswith("image/")
    ]
    assert pictures
    assert all(Image.open(io.BytesIO(base64.b64decode(picture))).width <= 2000 for picture in pictures)


@pytest.mark.slow
@every_notebook
def test_it_runs(path: Path, tmp_path: Path) -> None:
    """Without an error, and each cell shows what it shows in the file."""
    if path.stem == "backbone":
        pytest.importorskip("segmentation_models_pytorch")
    committed = SCRIPT["read"](path)
    assert kinds(SCRIPT["execute"](SCRIPT["read"](path), tmp_path)) == kinds(committed)
    assert not list((ROOT / "notebooks").glob("runs"))
