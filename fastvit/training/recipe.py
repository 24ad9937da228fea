"""Recipe files and the command line, parsed into `fastvit.training.options`. Needs no torch."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastvit.arguments import hyphenated, refuse_empty, refuse_unknown, underscored, with_flag_values
from fastvit.errors import UserError, unknown_name
from fastvit.runs.files import RECIPE
from fastvit.runs.settings import flatten
from fastvit.training.fields import recipe_fields
from fastvit.training.options import Recipe

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser

RECIPES = Path(__file__).parent.parent / "recipes"


def recipe_path(name: str) -> Path:
    """The file of a shipped recipe, or a path as it is.

    Raises:
        UserError: there is no such recipe and no such file.
    """
    path = Path(name)
    if path.is_file():
        return path
    shipped = RECIPES / f"{name}.yaml"
    if shipped.is_file():
        return shipped
    raise unknown_name("recipe", name, recipe_names(), otherwise="; or give a .yaml file")


def recipe_names() -> list[str]:
    """Names of the shipped recipes."""
    return sorted(path.stem for path in RECIPES.glob("*.yaml"))


def recipe_parser(prog: str = "fastvit train", description: str | None = None) -> ArgumentParser:
    """A parser whose options are the fields of Recipe, with --recipe for a shipped recipe or a file."""
    from jsonargparse import ActionConfigFile, ArgumentParser

    class RecipeFile(ActionConfigFile):
        """--recipe takes a shipped recipe's name as well as a file; `base` names the recipe that a file changes."""

        def __call__(self, parser: Any, cfg: Any, values: Any, option_string: str | None = None) -> None:
            path = recipe_path(values)
            try:
                base, content = _split_base(path)
                if base:
                    self(parser, cfg, base, option_string)
                super().__call__(parser, cfg, content, option_string)
            except UserError:
                raise
            except Exception as error:  # jsonargparse and YAML have no common base but this
                raise UserError(f"{path}: {' '.join(str(error).split())}") from error

    parser = ArgumentParser(prog=prog, description=description, exit_on_error=False)
    parser.add_argument(
        "--recipe", action=RecipeFile, metavar="NAME|FILE", help=f"start from a recipe: {', '.join(recipe_names())}"
    )
    parser.add_class_arguments(Recipe)
    return parser


def _split_base(path: Path) -> tuple[str | None, str]:
    """The recipe that a file is based on, and the rest of the file as YAML."""
    import yaml

    content = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    if not isinstance(content, dict):
        raise UserError(f"{path} is no recipe: it must hold fields, such as epochs: 30")
    base = content.pop("base", None)
    return base, yaml.safe_dump(content)


def load_recipe(name: str, *options: str) -> Recipe:
    """A recipe by name or file, with command-line style options such as "--epochs=3" on top.

    Raises:
        UserError: no such recipe, or a field is unknown or ill-typed; the message names it.
    """
    return parse_recipe(recipe_parser(), ["--recipe", name, *options])


def parse_recipe(parser: ArgumentParser, arguments: list[str]) -> Recipe:
    """The recipe that command-line arguments describe; with --resume, that of the run, with other options on top.

    Raises:
        UserError: a field is unknown, ill-typed or empty, which the message names; or --resume and --recipe are both
            there.
    """
    import argparse

    refuse_empty(arguments)

    known = list(recipe_fields(Recipe()))
    flags = [field.name for field in known if field.kind is bool]
    arguments = with_flag_values([underscored(argument) for argument in arguments], flags)
    _refuse_unknown(arguments, [field.name for field in known])

    # A recipe replaces what stands before it on the line, so it goes first: options override it wherever they stand.
    finder = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    finder.add_argument("--recipe", action="append", default=[])
    finder.add_argument("--resume")
    finder.add_argument("--out")
    try:
        found, rest = finder.parse_known_args(arguments)
        if found.resume is not None:
            if found.recipe or found.out:
                raise UserError(
                    "--resume goes on in the run's folder by its own recipe: leave out --recipe and --out; give "
                    "single fields to change"
                )
            found.recipe = [_resolved_file(Path(found.resume))]
            found.out = found.resume
            rest.append(f"--resume={found.resume}")
        rest += [f"--out={found.out}"] if found.out else []
        first = [f"--recipe={name}" for name in found.recipe]
        values = parser.instantiate(parser.parse_args(first + rest)).as_dict()
    except argparse.ArgumentError as error:
        raise UserError(f"{' '.join(str(error).split())} (see fastvit train --help)") from error
    return Recipe(**{field.name: values[field.name] for field in fields(Recipe)})


def _refuse_unknown(arguments: list[str], names: list[str]) -> None:
    """See that options are fields of the recipe, or sections of it, for which jsonargparse takes files."""
    sections = {name[: dot.start()] for name in names for dot in re.finditer(r"\.", name)}
    known = [f"--{hyphenated(name)}" for name in (*names, *sections, "recipe", "help", "print_config")]
    refuse_unknown("train", [hyphenated(argument) for argument in arguments], known)


def dump_recipe(recipe: Recipe) -> str:
    """A recipe as YAML that --recipe reads again, with every field."""
    parser = recipe_parser()
    return str(parser.dump(parser.parse_object(asdict(recipe)), skip_unset=False))


def default_settings() -> dict[str, Any]:
    """Every field of a recipe with its default, by its dotted name."""
    return flatten(json.loads(json.dumps(asdict(Recipe()), default=str)))


def resolved_recipe(run: Path) -> Recipe:
    """Return the recipe of a run, as its folder has it.

    Raises:
        UserError: the folder holds no run.
    """
    return load_recipe(_resolved_file(run))


def _resolved_file(run: Path) -> str:
    path = run / RECIPE
    if not path.is_file():
        raise UserError(f"there is no run to resume in {run}: it has no {RECIPE}")
    return str(path)
