"""All commands by name: plain functions whose parameters are the options of the command.

`fastvit.cli.parser` reads the signatures. A function whose only parameter is `arguments` gets the rest of the command
line unparsed. A name of two words is a command of a group, such as "bench gpu". Heavy imports are inside the functions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from fastvit.cli.bench.gpu import bench_gpu
from fastvit.cli.bench.models import bench_models
from fastvit.cli.bench.train import bench_train
from fastvit.cli.compare import compare
from fastvit.cli.convert import convert
from fastvit.cli.evaluate import evaluate
from fastvit.cli.export import export
from fastvit.cli.fuse import fuse
from fastvit.cli.info import info
from fastvit.cli.models import models
from fastvit.cli.predict import predict
from fastvit.cli.quickstart import quickstart
from fastvit.cli.robustness import robustness
from fastvit.cli.synth.hands import synth_hands
from fastvit.cli.synth.scenes import synth_scenes
from fastvit.cli.train import train
from fastvit.errors import UserError, near_names, unknown_name
from fastvit.renames import COMMANDS as RENAMED

COMMANDS: dict[str, Callable[..., int | None]] = {
    "quickstart": quickstart,
    "models": models,
    "info": info,
    "synth scenes": synth_scenes,
    "synth hands": synth_hands,
    "train": train,
    "eval": evaluate,
    "compare": compare,
    "robustness": robustness,
    "predict": predict,
    "fuse": fuse,
    "convert": convert,
    "export": export,
    "bench models": bench_models,
    "bench gpu": bench_gpu,
    "bench train": bench_train,
}
# Groups of commands, each with the command that runs if only the name of the group is given; None for an error.
GROUPS = {"bench": "bench models", "synth": None}


def find_command(arguments: Sequence[str]) -> tuple[str, list[str]]:
    """Return the name of the command at the beginning of the command line, and the arguments that follow it.

    Raises:
        UserError: the command does not exist; the message suggests similar ones, or the new name of a renamed one.
    """
    for words in (2, 1):
        name = " ".join(arguments[:words])
        if name in COMMANDS:
            return name, list(arguments[words:])
    first, *rest = arguments
    if first in RENAMED:
        raise UserError(f"fastvit {first} is now called fastvit {RENAMED[first]}")
    if first not in GROUPS:
        raise unknown_name("command", first, COMMANDS, GROUPS, " (see fastvit --help)")
    others, default = [name.split()[1] for name in commands_of(first)], GROUPS[first]
    word = rest[0] if rest and not rest[0].startswith("-") else ""
    if default is None:
        raise (
            unknown_name(f"command fastvit {first}", word, others)
            if word
            else UserError(f"fastvit {first} needs a command: {' or '.join(others)} (see fastvit {first} --help)")
        )
    if (near := near_names(word, others)) and not Path(word).exists():
        raise UserError(
            f"unknown command '{first} {word}': did you mean {first} {near[0]}? To time a model of that name: "
            f"fastvit {default} {word}"
        )
    return default, rest


def commands_of(group: str) -> dict[str, Callable[..., int | None]]:
    """Return the commands of a group, such as "bench"."""
    return {name: function for name, function in COMMANDS.items() if name.split()[0] == group and name != group}
