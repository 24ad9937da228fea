"""Parsing of command-line options: spellings, flags, unknown and empty options, sizes."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from itertools import takewhile, zip_longest
from typing import Literal

from fastvit.errors import UserError, near_names
from fastvit.renames import new_option

# What other tools call an option, and its last word here; both with hyphens.
SYNONYMS = {
    "learning-rate": "lr",
    "wd": "weight-decay",
    "imgsz": "size",
    "img-size": "size",
    "image-size": "size",
    "smoothing": "label-smoothing",
    "conf": "score",
    "format": "to",
}


def underscored(argument: str) -> str:
    """Return an option with underscores in its name, as --batch_size for --batch-size; its value is not changed."""
    return re.sub(r"^--[\w.-]+", lambda name: "--" + name[0][2:].replace("-", "_"), argument)


def hyphenated(argument: str) -> str:
    """Return an option or its name with hyphens, as it is shown: batch-size; its value is not changed."""
    return re.sub(r"^-{0,2}[\w.-]+", lambda name: name[0].replace("_", "-"), argument)


def with_flag_values(arguments: Sequence[str], flags: Collection[str]) -> list[str]:
    """Return arguments in which each flag has a value: --compile becomes --compile=true, --no_compile --compile=false.

    Args:
        arguments: arguments; options have underscores. A flag with a value keeps it: --compile=false, --compile false.
        flags: names of the options that are true or false.
    """
    spelled = []
    for argument, following in zip_longest(arguments, arguments[1:], fillvalue="--"):
        name = argument.removeprefix("--")
        if argument.startswith("--no_") and name.removeprefix("no_") in flags:
            spelled.append(f"--{name.removeprefix('no_')}=false")
        elif argument.startswith("--") and name in flags and following.startswith("-"):
            spelled.append(f"{argument}=true")
        else:
            spelled.append(argument)
    return spelled


def refuse_unknown(command: str, arguments: Sequence[str], known: Iterable[str]) -> None:
    """Raise an error if a command does not have one of the given options.

    Args:
        command: name of the command.
        arguments: arguments after the command; options have hyphens.
        known: options of the command, with their hyphens.

    Raises:
        UserError: an option does not exist; the message contains its new name or the nearest names.
    """
    known = list(known)
    for argument in takewhile(lambda text: text != "--", arguments):
        name = argument.partition("=")[0]
        if not re.match(r"--?[A-Za-z]", name) or name in known or (name[1] != "-" and name[:2] in known):
            continue
        if (new := new_option(command, name.lstrip("-"))) and f"--{new.removeprefix('no-')}" in known:
            raise UserError(f"{name} is now called --{new} (see fastvit {command} --help)")
        near = [f"--{each}" for each in similar_names(name.lstrip("-"), [each.lstrip("-") for each in known])]
        meant = f": did you mean {' or '.join(near)}?" if near else ""
        raise UserError(f"fastvit {command} has no option {name}{meant} (see fastvit {command} --help)")


def similar_names(name: str, known: Iterable[str]) -> list[str]:
    """Return the options or recipe fields that may be meant by a name, at most three.

    Args:
        name: unknown name, with hyphens or underscores. An option of another tool, or a field without its section,
            gives the fields of that name: "learning-rate" gives "optim.lr".
        known: all names.
    """
    known = list(known)
    word = name.rpartition(".")[2].replace("_", "-")
    word = SYNONYMS.get(word, word)
    same = [each for each in known if each.rpartition(".")[2].replace("_", "-") == word]
    return same[:3] or near_names(name, known)


def refuse_given(reason: str, **values: object) -> None:
    """Raise an error if an option is given that would have no effect.

    Args:
        reason: reason why they have no effect, to follow the name of the option: "is for classifiers".
        values: values of options by their names; None and False mean that an option is not given.

    Raises:
        UserError: an option is given.
    """
    for name, value in values.items():
        if value is not None and value is not False:
            raise UserError(f"--{hyphenated(name)} {reason}: leave it out")


def refuse_empty(arguments: Sequence[str]) -> None:
    """Raise an error if an argument is empty; an empty path would mean the current folder.

    Raises:
        UserError: an argument is empty; the message contains its option.
    """
    for index, argument in enumerate(arguments):
        option, equals, value = argument.partition("=")
        named = option.startswith("--") and equals
        if (value if named else argument).strip():
            continue
        before = arguments[index - 1] if index else ""
        name = option if named else before if before.startswith("--") and "=" not in before else f"argument {index + 1}"
        name = hyphenated(name) if name.startswith("-") else name
        raise UserError(f"{name} is empty: give a value, or leave it out (a shell variable may not be set)")


def parse_size(text: str | None) -> tuple[int, int] | Literal["dynamic"] | None:
    """Return the height and width that an option gives.

    Args:
        text: "256" for both sides, "192x256" (height x width), "dynamic", or None.

    Raises:
        UserError: the text is not one of these.
    """
    if text is None:
        return None
    if text == "dynamic":
        return "dynamic"
    parts = text.lower().split("x")
    if len(parts) > 2 or not all(part.isdigit() for part in parts):
        raise UserError(f"size must be a number of pixels, HEIGHTxWIDTH, or dynamic; got {text!r}")
    return int(parts[0]), int(parts[-1])


def parse_batches(text: str) -> list[int | Literal["dynamic"]]:
    """Return the batch sizes that an option gives.

    Args:
        text: "dynamic", a number, or numbers separated by commas, such as "1,8".

    Raises:
        UserError: the text is not one of these.
    """
    parts = [part.strip() for part in text.split(",")]
    if not all(part == "dynamic" or part.isdigit() for part in parts):
        raise UserError(f"batch must be numbers of images, separated by commas, or dynamic, got {text!r}")
    return ["dynamic" if part == "dynamic" else int(part) for part in parts]
