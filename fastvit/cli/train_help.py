"""Help of `fastvit train`: a page of common fields, and one page for each section of a recipe."""

from __future__ import annotations

import inspect
import re
from collections.abc import Collection, Iterable, Sequence
from functools import cache
from textwrap import shorten, wrap
from types import NoneType
from typing import Any, Literal, get_args, get_origin

from fastvit.arguments import hyphenated
from fastvit.cli.parser import CommandParser, help_text, value_name
from fastvit.errors import UserError, unknown_name
from fastvit.tasks.table import all_tasks, find_task
from fastvit.training.fields import Field, recipe_fields
from fastvit.training.options import Recipe
from fastvit.training.recipe import recipe_names, recipe_path

# The fields on the first page; those that a task does not use are left out.
USUAL: dict[str, tuple[str, ...]] = {
    "data and run": ("task", "data", "val_fraction", "out", "overwrite", "resume"),
    "model": ("model.name", "model.pretrained", "model.weights", "model.size", "model.freeze"),
    "training": (
        "epochs",
        "batch_size",
        "accumulate_grad_batches",
        "optim.lr",
        "optim.warmup_epochs",
        "optim.weight_decay",
        "seed",
    ),
    "machine": ("device", "devices", "num_nodes", "num_workers", "precision", "compile", "channels_last"),
}
# Pages besides those of the sections: the fields outside sections, the shipped recipes, and all fields.
RUN, RECIPES, ALL = "run", "recipes", "all"
_STYLE = """\
A flag alone means true, --no-FLAG false; a list is written as [1,2], and null
means no value. --print-config prints the resulting recipe without training."""


def split_help(arguments: Sequence[str]) -> tuple[str | None, list[str]]:
    """Return the help page that the options select, and the other arguments.

    `--help` selects the first page, "", `--help SECTION` the page of a section, `--help-all` all pages; without these
    options the page is None.

    Raises:
        UserError: a section follows --help-all.
    """
    page: str | None = None
    rest = []
    for before, argument in zip(["", *arguments], arguments, strict=False):
        name, _, value = argument.partition("=")
        if name in ("-h", "--help", "--help-all"):
            page = ALL if name == "--help-all" else value
        elif before == "--help-all" and not argument.startswith("-"):
            raise UserError(f"--help-all takes no section; use fastvit train --help {argument}")
        elif before in ("-h", "--help") and not argument.startswith("-"):
            page = argument
        else:
            rest.append(argument)
    return page, rest


def help_page(recipe: Recipe, page: str, description: str) -> str:
    """Return a help page.

    Args:
        recipe: recipe whose fields and values are shown.
        page: "" for the first page, the name of a section, "run", "recipes" or "all".
        description: description of the command.

    Raises:
        UserError: the page does not exist.
    """
    sections = recipe_sections(recipe)
    if page == RECIPES:
        return _recipe_list()
    if page == "":
        return _first_page(sections, find_task(recipe.task).unused_fields, description)
    shown = sections if page == ALL else {page: sections[page]} if page in sections else None
    if shown is None:
        owners = [spec.name for spec in all_tasks() if page in spec.sections]
        hint = f"; {page} is for {owners[0]}: give --task {owners[0]}" if owners else ""
        raise unknown_name("help section", page, [*sections, RECIPES, ALL], otherwise=hint)
    parser = _parser(description, _STYLE)
    for name, fields in shown.items():
        _add_fields(parser, f"{name}: {section_summary(name, fields)}", fields)
    text = parser.format_help().rstrip()
    return f"{text}\n\n{_other_sections(recipe.task)}" if page == ALL else text


def _other_sections(task: str) -> str:
    """Return the sections of the other tasks, with the terms that their fields are about."""
    lines = []
    for spec in all_tasks():
        if spec.name != task:
            sections = [f"{name}{_terms(name, kind)}" for name, kind in spec.sections.items()]
            lines += wrap(
                f"--task {spec.name}: {', '.join(sections)}", 78, initial_indent="  ", subsequent_indent="    "
            )
    return "\n".join([f"These are the sections of {task}. Other tasks have other sections:", *lines])


def _terms(section: str, kind: type) -> str:
    """Return the terms with which descriptions of fields begin, as in "NMS threshold: ...", in parentheses."""
    texts = [
        field_texts(field.owner).get(field.name.rpartition(".")[2], "")
        for field in recipe_fields(kind(), f"{section}.")
    ]
    terms = [found[1] for text in texts if (found := re.match(r"(\w+(?: \w+){0,2}): ", text))]
    return f" ({', '.join(terms)})" if terms else ""


def _first_page(sections: dict[str, list[Field]], unused: Collection[str], description: str) -> str:
    parser = _parser(description, None)
    by_name = {field.name: field for fields in sections.values() for field in fields if field.name not in unused}
    group = parser.add_argument_group("recipe")
    group.add_argument(
        "--recipe", metavar="NAME|FILE", help="recipe to start from: the name of a shipped one, or a .yaml file"
    )
    for title, names in USUAL.items():
        _add_fields(parser, title, [by_name[name] for name in names if name in by_name])
    width = max(map(len, sections))
    listed = [
        f"  {name:{width}}  {len(fields):2} fields: {section_summary(name, fields)}"
        for name, fields in sections.items()
    ]
    more = [
        "fastvit train --help SECTION shows the fields of a section, --help-all those of",
        f"all; --help {RECIPES} lists the shipped recipes. --task and --recipe add sections.",
    ]
    return "\n".join([parser.format_help(), "sections:", *listed, "", *more, _STYLE])


def recipe_sections(recipe: Recipe) -> dict[str, list[Field]]:
    """Return the fields of a recipe by section; those outside sections are in "run"."""
    sections: dict[str, list[Field]] = {RUN: []}
    for field in recipe_fields(recipe):
        sections.setdefault(field.section or RUN, []).append(field)
    return sections


def section_summary(name: str, fields: Sequence[Field]) -> str:
    """Return a short description of a section.

    Args:
        name: name of the section.
        fields: fields of the section.
    """
    if name == RUN:
        return "fields outside sections"
    owner = next((field.owner for field in fields if field.name.count(".") == 1), fields[0].owner)
    return shorten(re.split("[,;.]", _docs(owner).short_description or "")[0], 50, placeholder="...")


def _parser(description: str, epilog: str | None) -> CommandParser:
    usage = "fastvit train [--recipe NAME|FILE] [--FIELD VALUE ...]"
    return CommandParser("train", description, usage=usage, epilog=epilog, add_help=False)


def _add_fields(parser: CommandParser, title: str, fields: Iterable[Field]) -> None:
    group = parser.add_argument_group(title)
    for field in fields:
        name = hyphenated(field.name)
        text = help_text(field_texts(field.owner).get(field.name.rpartition(".")[2], ""), field.value)
        if field.kind is bool:
            group.add_argument(f"--[no-]{name}", action="store_true", help=text)
        else:
            kind = Literal[*(spec.name for spec in all_tasks())] if name == "task" else field.kind
            group.add_argument(f"--{name}", metavar=type_text(name.rpartition(".")[2], kind), help=text)


def type_text(name: str, kind: Any) -> str:
    """Return the placeholder of a value of a type.

    Args:
        name: name of the field.
        kind: type of the value.
    """
    if get_origin(kind) is tuple:
        return "[" + ",".join("..." if part is Ellipsis else type_text(name, part) for part in get_args(kind)) + "]"
    parts = [part for part in get_args(kind) if isinstance(part, type) or get_origin(part)]
    if parts:
        return "|".join("null" if part is NoneType else type_text(name, part) for part in parts)
    return value_name(name, kind)


@cache
def _docs(owner: type) -> Any:
    import docstring_parser

    return docstring_parser.parse(inspect.getdoc(owner) or "")


def field_texts(owner: type) -> dict[str, str]:
    """Return the descriptions of the fields of a dataclass; None is called null, as in recipe files and options."""
    return {param.arg_name: re.sub(r"\bNone\b", "null", param.description or "") for param in _docs(owner).params}


def _recipe_list() -> str:
    """Return the list of the shipped recipes, with the first line of each file."""
    width = max(map(len, recipe_names()))
    lines = []
    for name in recipe_names():
        with recipe_path(name).open(encoding="utf-8") as file:
            lines.append(f"  {name:{width}}  {file.readline().lstrip('# ').rstrip()}")
    return "\n".join(["shipped recipes, for fastvit train --recipe NAME:", *lines])
