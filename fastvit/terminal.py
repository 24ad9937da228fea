"""Tables on the terminal. Importing this is cheap; rich comes with the first table."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.table import Table


def new_table(*columns: str, left: Sequence[int] = (0,)) -> Table:
    """An empty table; the columns with the indices `left` are aligned left, the others right."""
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD)
    for index, column in enumerate(columns):
        table.add_column(column, justify="left" if index in left else "right", overflow="fold")
    return table


def show(content: object, style: str | None = None) -> None:
    """Print a table or text to stdout; a table in a pipe is not folded to 80 columns."""
    from rich.console import Console

    Console(width=None if sys.stdout.isatty() else 200).print(content, style=style, highlight=False)


def show_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print rows of text under a header."""
    table = new_table(*header)
    for row in rows:
        table.add_row(*row)
    show(table)
