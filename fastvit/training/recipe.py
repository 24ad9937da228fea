"""Parse recipe files and the command line into `fastvit.training.options`. Needs no torch."""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastvit.arguments import hyphenated, refuse_empty, refuse_unknown, similar_names, underscored, with_flag_values
from fastvit.errors import UserError, unknown_name
from fastvit.renames import old_names, renamed_recipe
from fastvit.runs.files import RECIPE
from fastvit.runs.settings import flatten
from fastvit.tasks.spec import TaskSpec
from fastvit.tasks.table import DEFAULT_TASK, all_tasks, find_task
from fastvit.training.fields import recipe_fields, value_words
from fastvit.training.options import Recipe

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser

RECIPES = Path(__file__).parent.parent / "recipes"


def recipe_path(name: str) -> Path:
    """Return the path of a recipe file.

    Args:
        name: path of a file, or name of a shipped recipe.

    Raises:
        UserError: neither a file nor a shipped recipe with this name exists.
    """
    path = Path(name)
    if path.is_file():
        return path
    shipped = RECIPES / f"{name}.yaml"
    if shipped.is_file():
        return shipped
    if path.suffix in (".yaml", ".yml"):
        raise UserError(f"the recipe file {path} does not exist")
    raise unknown_name("recipe", name, recipe_names(), otherwise="; or give a .yaml file")


def recipe_names() -> list[str]:
    """Return the names of the shipped recipes."""
    return sorted(path.stem for path in RECIPES.glob("*.yaml"))


def recipe_parser(task: TaskSpec) -> ArgumentParser:
    """Return a parser whose options are the fields of a task's recipes, and --recipe for a shipped recipe or a file."""
    import yaml
    from jsonargparse import ActionConfigFile, ArgumentParser

    class RecipeFile(ActionConfigFile):
        """Action of --recipe, which takes a file or the name of a shipped recipe; `base` in a file is a recipe too."""

        def __call__(self, parser: Any, cfg: Any, values: Any, option_string: str | None = None) -> None:
            path = recipe_path(values)
            try:
                base, content = _read(path)
                if base:
                    self(parser, cfg, base, option_string)
                own = _without_other_sections(renamed_recipe(content), task, path)
                _refuse_unknown_fields(own, task, path)
                _warn_of_old_names(old_names(content), own, path)
                super().__call__(parser, cfg, yaml.safe_dump(own), option_string)
            except UserError:
                raise
            except Exception as error:  # the errors of jsonargparse and YAML have no other common base class
                raise UserError(f"{path}: {_wrong_value(error, task)}") from error

    parser = ArgumentParser(prog="fastvit train", add_help=False, exit_on_error=False, allow_abbrev=False)
    parser.add_argument("--recipe", action=RecipeFile)
    parser.add_class_arguments(Recipe, skip={"sections"})
    for name, section in task.sections.items():
        parser.add_class_arguments(section, name)
    return parser


def _read(path: Path) -> tuple[str | None, dict[str, Any]]:
    """Return the recipe that a file is based on, and the file's own fields."""
    import yaml

    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        place = f" (line {mark.line + 1}, column {mark.column + 1})" if mark else ""
        raise UserError(f"{path} is not valid YAML{place}: {error.problem}") from error
    except (yaml.YAMLError, ValueError, OSError) as error:
        raise UserError(f"{path}: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict):
        raise UserError(f"{path} is not a recipe: it must contain fields, such as epochs: 30")
    return content.pop("base", None), content


def _without_other_sections(content: dict[str, Any], task: TaskSpec, path: Path) -> dict[str, Any]:
    """Return the fields of a file without sections of other tasks.

    The recipes of runs before version 0.2 have the sections of all tasks: these are left out, with a warning if they
    differ from the defaults.

    Raises:
        UserError: another file has a section of another task that differs from the defaults.
    """
    others = {name: kind for spec in all_tasks() for name, kind in spec.sections.items() if name not in task.sections}
    of_a_run = others.keys() <= content.keys()
    for name in content.keys() & others.keys():
        if not isinstance(content[name], dict):
            raise UserError(f"{path}: {name} must contain fields, such as those of fastvit train --help {name}")
        defaults = _plain(asdict(others[name]()))
        if all(defaults.get(field) == value for field, value in flatten(content[name]).items()):
            continue
        reason = f"{path}: the section {name} does not apply to {task.name}"
        if not of_a_run:
            raise UserError(f"{reason}: leave it out")
        warnings.warn(f"{reason} and is left out", stacklevel=2)
    return {name: value for name, value in content.items() if name not in others}


def _refuse_unknown_fields(content: dict[str, Any], task: TaskSpec, path: Path) -> None:
    """Raise an error if a file has a field that the task's recipes do not have, or a section without fields."""
    known = [field.name for field in recipe_fields(Recipe(task=task.name))]
    sections = _sections(known)
    for name in flatten(content):
        if name in sections:
            raise UserError(f"{path}: {name} must contain fields, such as those of fastvit train --help {name}")
        if not any(name == field or name.startswith(f"{field}.") for field in known):
            near = similar_names(name, known if "." in name else [*known, *sections])
            meant = f": did you mean {' or '.join(near)}?" if near else " (see fastvit train --help-all)"
            raise UserError(f"{path}: {name} is not a recipe field{meant}")


def _sections(names: Iterable[str]) -> set[str]:
    """Return the sections of fields by their dotted names, such as "detection" and "detection.network"."""
    return {name[: dot.start()] for name in names for dot in re.finditer(r"\.", name)}


def _wrong_value(error: Exception, task: TaskSpec, option: bool = False) -> str:
    """Return an error of jsonargparse in plain words: a field, the values that it may have, and its value.

    Args:
        error: error of jsonargparse; if it is not about a value, its own text is returned.
        task: task of the recipe.
        option: name the field as an option of the command line, and the help page that describes it.
    """
    text = " ".join(str(error).split())
    known = {field.name: field for field in recipe_fields(Recipe(task=task.name))}
    key = re.match(r'Parser key "([\w.]+)"', text)
    name = key[1] if key else ""
    shown = f"--{hyphenated(name)}" if option else name
    page = ""
    if name in _sections(known):
        page = name.partition(".")[0]
        text = f"{shown} must be a .yaml file with fields of the section: to set one field, give {shown}.FIELD"
    elif name in known:
        page = known[name].section or "run"
        value = re.findall(r"(?:Got|Given) value: (.*?)(?= - |$)", text)
        got = f"; got {'null' if value[-1] == 'None' else repr(value[-1])}" if value else ""
        words = value_words(known[name].kind)
        text = f"{shown} must be {words}{got if ', ' in words else got.replace(';', ',', 1)}"
    return f"{text} (see {f'fastvit train --help {page}'.rstrip()})" if option else text


def _warn_of_old_names(old: Mapping[str, str], own: Collection[str], path: Path) -> None:
    """Warn of old field names in a file, except in sections that are left out."""
    changed = [f"{name} is now called {new}" for name, new in old.items() if new.partition(".")[0] in own]
    if changed:
        warnings.warn(f"{path} uses old field names: {', '.join(changed)}", stacklevel=2)


def recipe_task(name: str) -> str | None:
    """Return the task of a recipe, else that of the recipe it is based on; None if neither has one."""
    path = recipe_path(name)
    base, content = _read(path)
    return content["task"] if "task" in content else recipe_task(base) if base else None


def load_recipe(name: str, *options: str) -> Recipe:
    """Load a recipe, and change fields by options.

    Args:
        name: name of a shipped recipe, or path of a file.
        options: options as on the command line, such as "--epochs=3".

    Raises:
        UserError: the recipe does not exist, or a field is unknown or has a value of the wrong type.
    """
    return parse_recipe(["--recipe", name, *options])


def parse_recipe(arguments: list[str]) -> Recipe:
    """Parse the arguments of `fastvit train` into a recipe; with --resume, it starts from the recipe of the run.

    Args:
        arguments: options; a flag needs no value, and --no-NAME switches one off.

    Raises:
        UserError: a field is unknown, belongs to another task, is empty, or has a value of the wrong type; or both
            --resume and --recipe are given.
    """
    import argparse

    refuse_empty(arguments)

    arguments = [underscored(argument) for argument in arguments]

    # A recipe replaces the options before it, so it goes first: options override it wherever they are given.
    finder = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    finder.add_argument("--recipe", action="append", default=[])
    finder.add_argument("--resume")
    finder.add_argument("--out")
    finder.add_argument("--task")
    task = find_task(DEFAULT_TASK)  # until the recipe's own is known
    try:
        found, rest = finder.parse_known_args(arguments)
        if found.resume is not None:
            if found.recipe or found.out:
                raise UserError(
                    "--resume uses the folder and the recipe of the run: leave out --recipe and --out; give single "
                    "fields to change them"
                )
            found.recipe = [_resolved_file(Path(found.resume))]
            own = recipe_task(found.recipe[0]) or DEFAULT_TASK
            if found.task not in (None, own):
                raise UserError(f"a resumed run cannot change task from {own} to {found.task}: leave --task out")
            found.out = found.resume
            rest.append(f"--resume={found.resume}")
        rest += [f"--out={found.out}"] if found.out else []
        first = [f"--recipe={name}" for name in found.recipe]
        named = [found.task, *(recipe_task(name) for name in reversed(found.recipe))]
        task = find_task(next((name for name in named if name), DEFAULT_TASK))
        rest = _checked_options(rest, task)
        parser = recipe_parser(task)
        values = parser.instantiate(parser.parse_args([*first, *rest, f"--task={task.name}"])).as_dict()
    except argparse.ArgumentError as error:
        raise UserError(_wrong_value(error, task, option=True)) from error
    common = {field.name: values[field.name] for field in fields(Recipe) if field.name != "sections"}
    return Recipe(**common, sections={name: values[name] for name in task.sections})


def _checked_options(arguments: list[str], task: TaskSpec) -> list[str]:
    """Return options in which flags have values, after a check that each is a field or section of the task's recipes.

    Raises:
        UserError: an option is neither.
    """
    known = list(recipe_fields(Recipe(task=task.name)))
    arguments = with_flag_values(arguments, [field.name for field in known if field.kind is bool])
    names = [field.name for field in known]
    sections = _sections(names)  # jsonargparse reads files
    for argument in arguments:
        name = argument.partition("=")[0].removeprefix("--")
        owners = [spec.name for spec in all_tasks() if name.partition(".")[0] in spec.sections]
        if argument.startswith("--") and owners and task.name not in owners:
            raise UserError(
                f"--{hyphenated(name)} is for {' and '.join(owners)}, this recipe is for {task.name}: leave it out, or "
                f"give --task {owners[0]} or a recipe of that task"
            )
    options = [f"--{hyphenated(name)}" for name in (*names, *sections, "recipe", "help", "print_config")]
    refuse_unknown("train", [hyphenated(argument) for argument in arguments], options)
    return arguments


def dump_recipe(recipe: Recipe) -> str:
    """Return a recipe as YAML with all fields, in the format of recipe files."""
    parser = recipe_parser(find_task(recipe.task))
    return str(parser.dump(parser.parse_object(recipe.to_dict()), skip_unset=False))


def default_settings(task: str) -> dict[str, Any]:
    """Return the defaults of all fields of a task's recipes, by dotted name."""
    return _plain(Recipe(task=task).to_dict())


def _plain(content: dict[str, Any]) -> dict[str, Any]:
    """Return fields by dotted name, with the values that YAML has."""
    return flatten(json.loads(json.dumps(content, default=str)))


def resolved_recipe(run: Path) -> Recipe:
    """Load the recipe of a run.

    Args:
        run: folder of the run.

    Raises:
        UserError: the folder does not contain a run.
    """
    return load_recipe(_resolved_file(run))


def _resolved_file(run: Path) -> str:
    path = run / RECIPE
    if not path.is_file():
        raise UserError(f"{run} does not contain a run to resume: {RECIPE} was not found")
    return str(path)
