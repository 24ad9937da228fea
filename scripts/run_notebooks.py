"""Run the notebooks from top to bottom and write their outputs into them: python scripts/run_notebooks.py [NAME ...].

Needs the extra "notebooks". The outputs are committed, because GitHub shows them; tests/test_notebooks.py checks that
they are outputs of the code beside them.
"""

from __future__ import annotations

import hashlib
import os
import sys
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbformat import NotebookNode

NOTEBOOKS = Path(__file__).resolve().parent.parent / "notebooks"
# Key in a notebook's metadata: the SHA-256 of the code that its outputs come from.
CODE_DIGEST = "code_digest"
_SECONDS_PER_CELL = 3600


def read(path: Path) -> NotebookNode:
    """Read a notebook."""
    return nbformat.read(path, as_version=4)


def code_cells(notebook: NotebookNode) -> list[NotebookNode]:
    """Return the code cells."""
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def code_digest(notebook: NotebookNode) -> str:
    """Return the SHA-256 of all code cells."""
    return hashlib.sha256("\0".join(cell.source for cell in code_cells(notebook)).encode()).hexdigest()


def execute(notebook: NotebookNode, folder: Path) -> NotebookNode:
    """Run a notebook in place, in a new kernel with its working directory in `folder`.

    Raises:
        nbclient.exceptions.CellExecutionError: a cell raised an error.
    """
    # Without a backend of the caller's, the kernel shows figures inline.
    environment = {name: value for name, value in os.environ.items() if name != "MPLBACKEND"}
    client = NotebookClient(
        notebook,
        timeout=_SECONDS_PER_CELL,
        kernel_name="python3",
        record_timing=False,
        coalesce_streams=True,
        resources={"metadata": {"path": str(folder)}},
    )
    client.execute(env=environment)
    notebook.metadata = NotebookNode(
        kernelspec={"display_name": "Python 3", "language": "python", "name": "python3"},
        language_info={"name": "python"},
        **{CODE_DIGEST: code_digest(notebook)},
    )
    return notebook


def main(names: list[str]) -> None:
    """Run the notebooks of these names, or all."""
    paths = [NOTEBOOKS / f"{name}.ipynb" for name in names] or sorted(NOTEBOOKS.glob("*.ipynb"))
    for path in paths:
        with tempfile.TemporaryDirectory() as folder:
            nbformat.write(execute(read(path), Path(folder)), path)
        print(f"{path.name}: {path.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    main(sys.argv[1:])
