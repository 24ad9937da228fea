"""Tables that other packages can add to: a row is registered in Python, or by an installed package's entry point.

An entry point in the group `fastvit.plugins` names a module, whose import registers what it has to add. They are
imported when a name is looked up that is not there yet, so that they cost nothing before.
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
    """Import what installed packages add, once; one that cannot be imported does not keep the others from it.

    Returns:
        What could not be imported, a sentence each, which names the package.
    """
    failures = []
    for plugin in entry_points(group=GROUP):
        try:
            plugin.load()
        except (Exception, SystemExit) as error:  # whatever a package raises when it is imported
            package = plugin.dist.name if plugin.dist else "an installed package"
            failures.append(
                f"the plugin {plugin.name} ({plugin.value}) of {package} cannot be loaded: "
                f"{type(error).__name__}: {first_line(error)}; update or uninstall it"
            )
    return tuple(failures)


def warn_of_failures() -> None:
    """Load the plugins, with a warning for each that cannot be loaded."""
    for failure in load_plugins():
        warnings.warn(failure, stacklevel=3)


def not_loaded() -> str:
    """Return what to add to an error about an unknown name: it may be that of a plugin that cannot be loaded."""
    return "".join(f"; {failure}" for failure in load_plugins())


def register(table: dict[str, Row], kind: str, name: str, row: Row) -> None:
    """Add a row to a table.

    Raises:
        UserError: there is a row of that name.
    """
    if name in table:
        raise UserError(f"the {kind} {name!r} exists already: register yours under another name")
    table[name] = row


def find(table: dict[str, Row], kind: str, name: str) -> Row:
    """Return the row of a name, of a plugin if need be.

    Raises:
        UserError: there is none; the message lists what there is.
    """
    if name not in table:
        load_plugins()
    if name not in table:
        raise unknown_name(kind, name, table, otherwise=not_loaded())
    return table[name]
