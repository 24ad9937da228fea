"""Argument parsers of the commands, created from the signatures of their functions."""

from __future__ import annotations

import inspect
from argparse import ArgumentParser, ArgumentTypeError, HelpFormatter
from collections.abc import Callable, Sequence
from pathlib import Path
from types import NoneType
from typing import Any, Literal, NoReturn, get_args, get_origin

from fastvit.arguments import hyphenated, refuse_unknown
from fastvit.errors import UserError, unknown_name

# Placeholders of values in the help, by type; other values are named after their option.
_VALUE_NAMES = {int: "N", float: "X", Path: "PATH"}


def parse(command: str, function: Callable[..., object], arguments: Sequence[str]) -> tuple[list[Any], dict[str, Any]]:
    """Return the positional and the keyword arguments with which a command's function is called.

    Args:
        command: name of the command, such as "bench gpu".
        function: function of the command. A parameter without a default, or before `/`, is a positional argument; a
            bool is a flag; a list takes the remaining positional arguments; a name of one letter is also a short
            option.
        arguments: the command line after the command, options with hyphens.

    Raises:
        UserError: an option is unknown, or its value is missing or of the wrong type.
    """
    parser = command_parser(command, function)
    refuse_unknown(command, arguments, parser.option_names)
    # Options may be mixed with positional arguments, unless "--" ends the options: argparse does not support both.
    read = parser.parse_known_args if "--" in arguments else parser.parse_known_intermixed_args
    values, further = read(arguments)
    if further:
        raise UserError(f"fastvit {command} takes no further argument {further[0]!r} (see fastvit {command} --help)")
    options = vars(values)
    alone = [options.pop(name) for name in _alone(function)]
    return alone, options


class CommandParser(ArgumentParser):
    """ArgumentParser that raises UserError, with the command in the message, instead of exiting."""

    def __init__(self, command: str, description: str | None = None, **options: Any) -> None:
        super().__init__(
            prog=f"fastvit {command}",
            description=description,
            allow_abbrev=False,
            formatter_class=_Formatter,
            **options,
        )

    @property
    def option_names(self) -> list[str]:
        """All options, with their leading hyphens."""
        return list(self._option_string_actions)

    def error(self, message: str) -> NoReturn:
        """Raise the message of argparse.

        Raises:
            UserError: always.
        """
        raise UserError(f"{message.removeprefix('argument ')} (see {self.prog} --help)")


class _Formatter(HelpFormatter):
    """Help formatter whose descriptions begin farther left than after the longest option."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=26)


def command_parser(command: str, function: Callable[..., object]) -> CommandParser:
    """Return the parser of a command; `parse` describes how parameters become options.

    Args:
        command: name of the command.
        function: function of the command; its docstring has the help texts.
    """
    import docstring_parser

    docs = docstring_parser.parse(inspect.getdoc(function) or "")
    helps = {param.arg_name: param.description or "" for param in docs.params}
    parser = CommandParser(command, docs.short_description, epilog=docs.long_description)
    alone = _alone(function)
    for name, parameter in inspect.signature(function, eval_str=True).parameters.items():
        kind, default = _value_type(parameter.annotation), parameter.default
        required = default is inspect.Parameter.empty
        described = help_text(helps.get(name, ""), default)
        if kind is bool:
            parser.add_argument(f"--{hyphenated(name)}", action="store_true", help=described)
        elif get_origin(kind) is list:
            parser.add_argument(name, nargs="+" if required else "*", metavar=name.rstrip("s").upper(), help=described)
        elif required or name in alone:
            parser.add_argument(
                name, nargs=None if required else "?", default=default, type=kind, metavar=name.upper(), help=described
            )
        else:
            parser.add_argument(
                *([f"-{name}"] if len(name) == 1 else []),
                f"--{hyphenated(name)}",
                default=default,
                type=_choice(get_args(kind)) if get_origin(kind) is Literal else kind,
                metavar=value_name(name, kind),
                help=described,
            )
    return parser


def _alone(function: Callable[..., object]) -> list[str]:
    """Return the names of the optional positional arguments."""
    parameters = inspect.signature(function).parameters.values()
    return [parameter.name for parameter in parameters if parameter.kind is parameter.POSITIONAL_ONLY]


def _value_type(annotation: Any) -> Any:
    """Return the type of an option's value without None."""
    if get_origin(annotation) in (list, Literal):
        return annotation
    kinds = [kind for kind in get_args(annotation) if kind is not NoneType]
    return kinds[0] if kinds else annotation


def _choice(choices: Sequence[str]) -> Callable[[str], str]:
    """Return a type for argparse that accepts the given names."""

    def choice(text: str) -> str:
        if text not in choices:
            raise ArgumentTypeError(str(unknown_name("choice", text, choices)))
        return text

    return choice


def value_name(name: str, kind: Any) -> str:
    """Return the placeholder of an option's value in the help: its choices, a letter for a number, or a name."""
    if get_origin(kind) is Literal:
        return "{" + ",".join(map(str, get_args(kind))) + "}"
    return _VALUE_NAMES.get(kind, hyphenated(name).upper())


def help_text(text: str, default: Any) -> str:
    """Return the help text of an option, with its default unless that is None, False or empty."""
    nothing = any(default is each for each in (None, False, inspect.Parameter.empty)) or default in ("", [])
    value = "true" if default is True else str(list(default)) if isinstance(default, tuple) else str(default)
    return f"{' '.join(text.split())}{'' if nothing else f' (default: {value})'}".replace("%", "%%")
