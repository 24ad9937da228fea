"""Command line: find the command, parse its options, and report errors.

A user's mistake is reported as one line on stderr with exit code 2, without a traceback. The commands are in
`fastvit.cli.commands`.
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
    """Run one command and return the exit code.

    Args:
        argv: arguments after the name of the program; None for those of the process.
    """
    warnings.formatwarning = lambda message, *_, **__: f"fastvit: warning: {one_line(str(message))}\n"
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):  # characters that the encoding of the terminal lacks are escaped
            stream.reconfigure(errors="backslashreplace")
    try:
        return _run(sys.argv[1:] if argv is None else list(argv))
    except UserError as error:
        # The text of an error from a DataLoader worker includes the traceback of that process.
        last = re.split(r"fastvit\.errors\.\w+: ", str(error).strip())[-1]
        print_line(f"fastvit: error: {one_line(last)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print_line("fastvit: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # The reader (head, a pager) has ended: Python must not write to it again at exit.
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
    """Turn `fastvit help COMMAND ...` into `fastvit COMMAND --help ...`."""
    length = 2 if " ".join(words[:2]) in COMMANDS else 1
    return [*words[:length], "--help", *words[length:]]


def _usage() -> str:
    return "\n".join(
        [
            "usage: fastvit COMMAND ...",
            "",
            "Train, evaluate and deploy FastViT; every exported model is verified against the trained one.",
            "",
            *_listed(COMMANDS),
            "",
            "fastvit COMMAND --help shows the options of a command. Start with: fastvit quickstart",
        ]
    )


def _group_usage(group: str) -> str:
    default = GROUPS[group]
    alone = f"fastvit {group} without a command is fastvit {default}; " if default else ""
    return "\n".join(
        [
            f"usage: fastvit {group} COMMAND ...",
            "",
            *_listed(commands_of(group)),
            "",
            f"{alone}fastvit {group} COMMAND --help shows the options of a command",
        ]
    )


def _listed(commands: Mapping[str, Callable[..., object]]) -> list[str]:
    width = max(map(len, commands))
    summaries = {command: (inspect.getdoc(function) or "").splitlines()[0] for command, function in commands.items()}
    return [f"  {command:{width}}  {summary}" for command, summary in summaries.items()]
