"""The options of a command, made from the signature of its function."""

from __future__ import annotations

import inspect
from argparse import ArgumentParser, ArgumentTypeError, HelpFormatter
from collections.abc import Callable, Sequence
from pathlib import Path
from types import NoneType
from typing import Any, Literal, NoReturn, get_args, get_origin

from fastvit.arguments import hyphenated, refuse_unknown
from fastvit.errors import UserError, unknown_name

# What stands for a value in the help; other values are called as their option.
_VALUE_NAMES = {int: "N", float: "X", Path: "PATH"}


def parse(command: str, function: Callable[..., object], arguments: Sequence[str]) -> tuple[list[Any], dict[str, Any]]:
    """Return the positional and the keyword arguments with which a command's function is called.

    Args:
        command: its name on the line.
        function: whose parameters are the options. A parameter without a default, and one before `/`, stands on the
            line without a name; a bool is a flag; a list takes what is left of the line; a name of one letter is a
            short option too.
        arguments: what stands on the line after the command, options with hyphens.

    Raises:
        UserError: an option is unknown, or its value is missing or of the wrong type.
    """
    parser = command_parser(command, function)
    refuse_unknown(command, arguments, parser.option_names)
    # Options may stand among the other arguments, but where "--" ends them, which argparse does not take together.
    read = parser.parse_known_args if "--" in arguments else parser.parse_known_intermixed_args
    values, further = read(arguments)
    if further:
        raise UserError(f"fastvit {command} takes no further argument {further[0]!r} (see fastvit {command} --help)")
    options = vars(values)
    alone = [options.pop(name) for name in _alone(function)]
    return alone, options


class CommandParser(ArgumentParser):
    """A parser whose mistakes are errors, which name the command."""

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
        """All options, with their hyphens."""
        return list(self._option_string_actions)

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message.removeprefix('argument ')} (see {self.prog} --help)")


class _Formatter(HelpFormatter):
    """Help whose texts start farther left than the longest option would have them."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=26)


def command_parser(command: str, function: Callable[..., object]) -> CommandParser:
    """Return the parser of a command; see `parse`."""
    import docstring_parser

    docs = docstring_parser.parse(inspect.getdoc(function) or "")
    helps = {param.arg_name: param.description or "" for param in docs.params}
    parser = CommandParser(command, docs.short_description)
    alone = _alone(function)
    for name, parameter in inspect.signature(function, eval_str=True).parameters.items():
        kind, default = _value_type(parameter.annotation), parameter.default
        required = default is inspect.Parameter.empty
        told = help_text(helps.get(name, ""), default)
        if kind is bool:
            parser.add_argument(f"--{hyphenated(name)}", action="store_true", help=told)
        elif get_origin(kind) is list:
            parser.add_argument(name, nargs="+" if required else "*", metavar=name.rstrip("s").upper(), help=told)
        elif required or name in alone:
            parser.add_argument(
                name, nargs=None if required else "?", default=default, type=kind, metavar=name.upper(), help=told
            )
        else:
            parser.add_argument(
                *([f"-{name}"] if len(name) == 1 else []),
                f"--{hyphenated(name)}",
                default=default,
                type=_choice(get_args(kind)) if get_origin(kind) is Literal else kind,
                metavar=value_name(name, kind),
                help=told,
            )
    return parser


def _alone(function: Callable[..., object]) -> list[str]:
    """Names of the parameters that stand on the line without an option's name and may be left out."""
    parameters = inspect.signature(function).parameters.values()
    return [parameter.name for parameter in parameters if parameter.kind is parameter.POSITIONAL_ONLY]


def _value_type(annotation: Any) -> Any:
    """The type of a value that is given, without the None of one that may be left out."""
    if get_origin(annotation) in (list, Literal):
        return annotation
    kinds = [kind for kind in get_args(annotation) if kind is not NoneType]
    return kinds[0] if kinds else annotation


def _choice(choices: Sequence[str]) -> Callable[[str], str]:
    """A type for argparse: one of some names."""

    def choice(text: str) -> str:
        if text not in choices:
            raise ArgumentTypeError(str(unknown_name("choice", text, choices)))
        return text

    return choice


def value_name(name: str, kind: Any) -> str:
    """Return what stands for the value of an option in the help: its choices, a letter for a number, or a name."""
    if get_origin(kind) is Literal:
        return "{" + ",".join(map(str, get_args(kind))) + "}"
    return _VALUE_NAMES.get(kind, hyphenated(name).upper())


def help_text(text: str, default: Any) -> str:
    """Return the text of an option with its default, where that is something to see."""
    nothing = any(default is each for each in (None, False, inspect.Parameter.empty)) or default in ("", [])
    value = "true" if default is True else str(list(default)) if isinstance(default, tuple) else str(default)
    return f"{' '.join(text.split())}{'' if nothing else f' (default: {value})'}".replace("%", "%%")
