"""The command line: finding the command, its options, and errors.

A mistake is one line on stderr and exit code 2, never a traceback. The commands are in `fastvit.cli.commands`.
"""

from __future__ import annotations

import inspect
import os
import re
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from io import TextIOWrapper
from itertools import takewhile

from fastvit.arguments import hyphenated, refuse_empty
from fastvit.cli.commands import COMMANDS, GROUPS, commands_of, find_command
from fastvit.cli.parser import command_parser, parse
from fastvit.console import one_line, print_line
from fastvit.errors import UserError
from fastvit.version import __version__

_HELP = ("-h", "--help")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    warnings.formatwarning = lambda message, *_, **__: f"fastvit: warning: {one_line(str(message))}\n"
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):  # a name that the terminal's encoding lacks is shown as escapes
            stream.reconfigure(errors="backslashreplace")
    try:
        return _run(sys.argv[1:] if argv is None else list(argv))
    except UserError as error:
        # One that was raised in a DataLoader's worker comes with that process's traceback in its text.
        last = re.split(r"fastvit\.errors\.\w+: ", str(error).strip())[-1]
        print_line(f"fastvit: error: {one_line(last)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print_line("fastvit: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # The reader (head, a pager) has gone: nothing is left to say, and Python must not try at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _run(arguments: list[str]) -> int:
    if arguments[:1] == ["help"]:
        arguments = _asking_for_help(arguments[1:])
    if not arguments or arguments[0] in _HELP:
        print_line(_usage())
        return 0
    if arguments[0] in ("-V", "--version"):
        print_line(f"fastvit {__version__}")
        return 0
    if arguments[0] in GROUPS and arguments[1:2] and arguments[1] in _HELP:
        print_line(_group_usage(arguments[0]))
        return 0
    command, rest = find_command(arguments)
    refuse_empty(rest)
    options = list(takewhile(lambda argument: argument != "--", rest))
    rest[: len(options)] = [hyphenated(text) if text.startswith("--") else text for text in options]
    function = COMMANDS[command]
    if list(inspect.signature(function).parameters) == ["arguments"]:
        return function(rest) or 0
    if any(option in options for option in _HELP):
        print_line(command_parser(command, function).format_help().rstrip())
        return 0
    positional, named = parse(command, function, rest)
    return function(*positional, **named) or 0


def _asking_for_help(words: list[str]) -> list[str]:
    """`fastvit help COMMAND ...` as `fastvit COMMAND --help ...`."""
    length = 2 if " ".join(words[:2]) in COMMANDS else 1
    return [*words[:length], "--help", *words[length:]]


def _usage() -> str:
    return "\n".join(
        [
            "usage: fastvit COMMAND ...",
            "",
            "FastViT, from a folder of images to a verified artifact on the device.",
            "",
            *_listed(COMMANDS),
            "",
            "fastvit COMMAND --help lists the options of a command; start with: fastvit quickstart",
        ]
    )


def _group_usage(group: str) -> str:
    default = GROUPS[group]
    alone = f"fastvit {group} alone is fastvit {default}; " if default else ""
    return "\n".join(
        [
            f"usage: fastvit {group} COMMAND ...",
            "",
            *_listed(commands_of(group)),
            "",
            f"{alone}fastvit {group} COMMAND --help lists the options of a command",
        ]
    )


def _listed(commands: Mapping[str, Callable[..., object]]) -> list[str]:
    width = max(map(len, commands))
    summaries = {command: (inspect.getdoc(function) or "").splitlines()[0] for command, function in commands.items()}
    return [f"  {command:{width}}  {summary}" for command, summary in summaries.items()]
