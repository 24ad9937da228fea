"""How options may be written."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal

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


def parse_size(text: str | None) -> tuple[int, int] | Literal["dynamic"] | None:
    """ "256", "192x256" (height x width), "dynamic" or None.

    Raises:
        UserError: it is none of these.
    """
    if text is None or text == "dynamic":
        return text  # type: ignore[return-value]
    parts = text.lower().split("x")
    if len(parts) > 2 or not all(part.isdigit() for part in parts):
        raise UserError(f"size must be a number of pixels, HEIGHTxWIDTH or dynamic, got {text!r}")
    return int(parts[0]), int(parts[-1])


def parse_batches(text: str) -> list[int | Literal["dynamic"]]:
    """ "1", "1,8" or "dynamic".

    Raises:
        UserError: it is none of these.
    """
    parts = [part.strip() for part in text.split(",")]
    if not all(part == "dynamic" or part.isdigit() for part in parts):
        raise UserError(f"batch must be numbers of images, joined by commas, or dynamic, got {text!r}")
    return ["dynamic" if part == "dynamic" else int(part) for part in parts]
