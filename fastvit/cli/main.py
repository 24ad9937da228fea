"""The command line: finding the command, its options, and errors.

A mistake is one line on stderr and exit code 2, never a traceback. The commands are in `fastvit.cli.commands`.
"""

from __future__ import annotations

import inspect
import os
import re
import sys
import warnings
from argparse import ArgumentError
from collections.abc import Callable, Sequence
from io import TextIOWrapper
from typing import TYPE_CHECKING

from fastvit.arguments import refuse_empty, underscored
from fastvit.cli.commands import COMMANDS
from fastvit.cli.train import train
from fastvit.errors import UserError
from fastvit.terminal import one_line, print_line
from fastvit.version import __version__

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    warnings.formatwarning = lambda message, *_, **__: f"fastvit: warning: {one_line(str(message))}\n"
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):  # a name that the terminal's encoding lacks is shown as escapes
            stream.reconfigure(errors="backslashreplace")
    arguments = [underscored(text) for text in (sys.argv[1:] if argv is None else argv)]
    try:
        refuse_empty(arguments[1:])
        return _run(arguments)
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
    if not arguments or arguments[0] in ("-h", "--help"):
        print_line(_usage())
        return 0
    command, *rest = arguments
    if command in ("-V", "--version"):
        print_line(f"fastvit {__version__}")
        return 0
    if command not in COMMANDS:
        raise UserError(f"there is no command {command!r}; there are {', '.join(COMMANDS)} (see fastvit --help)")
    if command == "train":
        return train(rest)
    parser = _parser(command, COMMANDS[command])
    try:
        values = parser.instantiate(parser.parse_args(rest))
    except ArgumentError as error:
        raise UserError(f"{' '.join(str(error).split())} (see fastvit {command} --help)") from error
    options = values.as_dict()
    alone = [options.pop(name) for name in _alone(COMMANDS[command])]
    return COMMANDS[command](*alone, **options) or 0


def _parser(command: str, function: Callable[..., object]) -> ArgumentParser:
    """Options of a function: a bool is a flag, a list takes what is left of the line."""
    import docstring_parser
    from jsonargparse import ArgumentParser

    docs = docstring_parser.parse(inspect.getdoc(function) or "")
    parser = ArgumentParser(
        prog=f"fastvit {command}", description=docs.short_description, exit_on_error=False, allow_abbrev=False
    )
    helps = {param.arg_name: param.description for param in docs.params}
    parameters = inspect.signature(function, eval_str=True).parameters
    flags = {name for name, parameter in parameters.items() if parameter.annotation is bool}
    lists = {name for name, parameter in parameters.items() if parameter.annotation == list[str]}
    alone = _alone(function)
    parser.add_function_arguments(function, as_group=False, as_positional=True, skip={*flags, *lists, *alone})
    for name in alone:
        parser.add_argument(name, nargs="?", default=parameters[name].default, help=helps.get(name))
    for name in lists:
        nargs = "+" if parameters[name].default is inspect.Parameter.empty else "*"
        parser.add_argument(name, nargs=nargs, metavar=name.rstrip("s").upper(), help=helps.get(name))
    for name in flags:
        parser.add_argument(f"--{name}", action="store_true", help=helps.get(name))
    return parser


def _alone(function: Callable[..., object]) -> list[str]:
    """Names of the arguments that stand on the line without an option's name and may be left out."""
    parameters = inspect.signature(function).parameters.values()
    return [parameter.name for parameter in parameters if parameter.kind is parameter.POSITIONAL_ONLY]


def _usage() -> str:
    width = max(map(len, COMMANDS))
    summaries = {command: (inspect.getdoc(function) or "").splitlines()[0] for command, function in COMMANDS.items()}
    lines = [f"  {command:{width}}  {summary}" for command, summary in summaries.items()]
    return "\n".join(
        [
            "usage: fastvit COMMAND ...",
            "",
            "FastViT, from a folder of images to a verified artifact on the device.",
            "",
            *lines,
            "",
            "fastvit COMMAND --help tells the options of one; start with: fastvit quickstart",
        ]
    )
