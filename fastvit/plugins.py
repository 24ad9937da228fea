"""Tables that other packages can extend: rows are registered in Python or by the entry point of an installed package.

An entry point in the group `fastvit.plugins` refers to a module, whose import registers its rows. Plugins are imported
when a name is looked up that is not in a table, so that they take no time before.
"""

from __future__ import annotations

import warnings
from functools import cache
from importlib.metadata import entry_points
from typing import TypeVar

from fastvit.errors import UserError, first_line, unknown_name

Row = TypeVar("Row")

GROUP = "fastvit.plugins"


@cache
def load_plugins() -> tuple[str, ...]:
    """Import the plugins of all installed packages, once; a plugin that fails does not stop the others.

    Returns:
        A sentence for each plugin that cannot be imported, with the name of its package.
    """
    failures = []
    for plugin in entry_points(group=GROUP):
        try:
            plugin.load()
        except (Exception, SystemExit) as error:  # an import may raise any error
            package = plugin.dist.name if plugin.dist else "an installed package"
            failures.append(
                f"the plugin {plugin.name} ({plugin.value}) of {package} cannot be loaded: "
                f"{type(error).__name__}: {first_line(error)}; update or uninstall it"
            )
    return tuple(failures)


def warn_of_failures() -> None:
    """Load the plugins, and issue a warning for each that cannot be loaded."""
    for failure in load_plugins():
        warnings.warn(failure, stacklevel=3)


def not_loaded() -> str:
    """Return the end of an error about an unknown name: the plugins that cannot be loaded, and might define it."""
    return "".join(f"; {failure}" for failure in load_plugins())


def register(table: dict[str, Row], kind: str, name: str, row: Row) -> None:
    """Add a row to a table.

    Args:
        table: table to extend.
        kind: kind of the rows, for the error, such as "token mixer".
        name: name of the row.
        row: row to add.

    Raises:
        UserError: a row of that name exists already.
    """
    if name in table:
        raise UserError(f"the {kind} {name!r} exists already: register yours under another name")
    table[name] = row


def find(table: dict[str, Row], kind: str, name: str) -> Row:
    """Return the row of a name; plugins are loaded if it is not in the table.

    Args:
        table: table to search.
        kind: kind of the rows, for the error, such as "token mixer".
        name: name of the row.

    Raises:
        UserError: the name does not exist; the message lists all names.
    """
    if name not in table:
        load_plugins()
    if name not in table:
        raise unknown_name(kind, name, table, otherwise=not_loaded())
    return table[name]
