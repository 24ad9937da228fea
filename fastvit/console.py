"""Terminal output: text, tables, progress. Importing this is cheap; rich is imported at its first use.

Names of classes, files and runs come from users' data. They are printed as text, never as markup, and cannot control
the terminal.
"""

from __future__ import annotations

import sys
import unicodedata
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, TextIO, TypeVar

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress
    from rich.table import Table

Item = TypeVar("Item")

# Unicode categories of control characters, undecodable bytes of file names, and separators that break a line.
_UNPRINTABLE = {"Cc", "Cs", "Zl", "Zp"}
# Marks that change the direction of text, which can make one name look like another.
_DIRECTIONS = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def printable(text: str) -> str:
    r"""Return the text with its control characters as escapes, such as "\x1b"; line feeds stay."""
    if text.isprintable():
        return text
    return "".join(
        character.encode("unicode_escape").decode() if _is_control(character) else character for character in text
    )


def one_line(text: str) -> str:
    """Return the text with its control characters and line feeds as escapes."""
    return printable(text).replace("\n", "\\n")


def counted(count: int, noun: str, plural: str | None = None) -> str:
    """Return a number with its noun, such as "1 image" or "1,000 images".

    Args:
        count: the number.
        noun: noun for one.
        plural: noun for other numbers, if it is not the noun with an s.
    """
    return f"{count:,} {noun if count == 1 else plural or noun + 's'}"


def _is_control(character: str) -> bool:
    return character != "\n" and (unicodedata.category(character) in _UNPRINTABLE or character in _DIRECTIONS)


def print_line(content: object, file: TextIO | None = None) -> None:
    """Print text, or str() of another object, and a line feed; by default to stdout."""
    print(printable(str(content)), file=file)


def new_console(stderr: bool = False, width: int | None = None) -> Console:
    """Return a rich console that prints each string unchanged on one line: no markup, no emoji, no highlighting."""
    from rich.console import Console
    from rich.text import Text

    class Plain(Console):
        def render_str(self, text: str, **options: Any) -> Text:
            return super().render_str(one_line(text), **options)

    return Plain(stderr=stderr, width=width, markup=False, emoji=False, highlight=False)


def new_progress() -> Progress:
    """Return a progress bar on stderr, which is removed at the end; without a terminal nothing is shown."""
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    console = new_console(stderr=True)
    description = TextColumn("{task.description}", markup=False)
    columns = description, BarColumn(), TaskProgressColumn(), TimeRemainingColumn()
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)


def track(items: Iterable[Item], description: str, total: float | None = None) -> Iterable[Item]:
    """Yield the items, and show a progress bar.

    Args:
        items: items to iterate over.
        description: text before the bar.
        total: number of items, if len() is not available.
    """
    with new_progress() as progress:
        yield from progress.track(items, total, description=printable(description))


def new_table(*columns: str, left: Sequence[int] = (0,)) -> Table:
    """Return an empty table.

    Args:
        columns: heading of each column.
        left: indices of the columns that are aligned left; the others are aligned right.
    """
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD)
    for index, column in enumerate(columns):
        table.add_column(column, justify="left" if index in left else "right", overflow="fold")
    return table


def print_styled(content: object, style: str | None = None) -> None:
    """Print a table or text to stdout; in a pipe, a table is up to 200 columns wide."""
    new_console(width=None if sys.stdout.isatty() else 200).print(content, style=style)


def print_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print rows of text under a header."""
    table = new_table(*header)
    for row in rows:
        table.add_row(*row)
    print_styled(table)
