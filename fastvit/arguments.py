"""How options may be written."""

from __future__ import annotations

import re
from collections.abc import Sequence

from fastvit.errors import UserError


def underscored(argument: str) -> str:
    """--batch-size and --batch_size are the same option; what follows its name stays as it is."""
    return re.sub(r"^--[\w.-]+", lambda name: "--" + name[0][2:].replace("-", "_"), argument)


def refuse_empty(arguments: Sequence[str]) -> None:
    """See that no argument is empty: as a path it would mean the current folder, as a name nothing.

    Raises:
        UserError: one is; the message names its option.
    """
    for index, argument in enumerate(arguments):
        option, equals, value = argument.partition("=")
        named = option.startswith("--") and equals
        if (value if named else argument).strip():
            continue
        before = arguments[index - 1] if index else ""
        name = option if named else before if before.startswith("--") and "=" not in before else f"argument {index + 1}"
        raise UserError(f"{name} is empty: give a value, or leave it out; is it a shell variable that is not set?")
