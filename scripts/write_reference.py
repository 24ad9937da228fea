"""Write the pages of docs/reference that are made from the code.

    python scripts/write_reference.py           # write them
    python scripts/write_reference.py --check   # fail if a page differs from the code

The pages are committed, so that a change of a command, an option or a recipe field shows in review.
"""

from __future__ import annotations

import argparse
import inspect
import sys
from argparse import Action
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

import fastvit
from fastvit import errors
from fastvit.arguments import hyphenated
from fastvit.cli.commands import COMMANDS, GROUPS
from fastvit.cli.parser import command_parser
from fastvit.cli.train_help import RECIPES, RUN, field_texts, recipe_sections, section_summary, type_text
from fastvit.tasks.table import DEFAULT_TASK, TASKS
from fastvit.training.fields import Field
from fastvit.training.recipe import parse_recipe, recipe_names, recipe_path, recipe_task
from fastvit.variables import VARIABLES

FOLDER = Path(__file__).parent.parent / "docs" / "reference"
# Where the files of the checkout can be read.
SOURCE = "https://github.com/fastvit-project/fastvit/blob/main"
# The tasks of the package: those of plugins are added when one is looked up.
PACKAGE_TASKS = tuple(TASKS)


def commands_page() -> str:
    """Return the page of commands, their options, and the fields of recipes."""
    listed = [(f"[`fastvit {name}`](#{_anchor(name)})", _summary(function)) for name, function in COMMANDS.items()]
    lines = [
        "# Commands and options",
        "",
        "This page lists every command, every option and every recipe field. `fastvit COMMAND --help` prints the same",
        "texts.",
        "",
        *_table(("command", "description"), listed),
        "",
        *(f"`fastvit {group}` alone runs `fastvit {default}`." for group, default in GROUPS.items() if default),
        "`--batch-size` and `--batch_size` are the same option. `N` is an integer, `X` a number, and `null` no value.",
        "",
    ]
    for name, function in COMMANDS.items():
        lines += [f"## fastvit {name} {{ #{_anchor(name)} }}", "", _summary(function), ""]
        if name != "train" and (epilog := command_parser(name, function).epilog):
            lines += [epilog, ""]
        lines += _train() if name == "train" else _options(name)
    return _page(lines)


def _options(command: str) -> list[str]:
    """Return the usage of a command and the table of its arguments and options."""
    actions = [action for action in command_parser(command, COMMANDS[command])._actions if action.dest != "help"]
    alone = [action for action in actions if not action.option_strings]
    options = [action for action in actions if action.option_strings]
    words = [f"fastvit {command}", *map(_argument, alone), *(["[OPTIONS]"] if options else [])]
    table = _table(("argument or option", "value", "default", "description"), map(_option, [*alone, *options]))
    return ["```text", " ".join(words), "```", "", *table, ""]


def _argument(action: Action) -> str:
    """Return how a positional argument is written in a usage line."""
    name = f"{action.metavar} ..." if action.nargs in ("+", "*") else str(action.metavar)
    return f"[{name}]" if action.nargs in ("?", "*") else name


def _option(action: Action) -> tuple[str, str, str, str]:
    """Return the row of an argument or option of a command that is not `fastvit train`."""
    text, _, default = (action.help or "").replace("%%", "%").rpartition(" (default: ")
    if not text:
        text, default = default, ""
    names = ", ".join(f"`{option}`" for option in action.option_strings)
    value = "flag" if action.nargs == 0 else _choices(str(action.metavar)) if names else ""
    return names or f"`{_argument(action)}`", value, _code(default.removesuffix(")")), text


def _train() -> list[str]:
    """Return the options of `fastvit train`: the fields of recipes, by section."""
    usual = [
        ("`--recipe`", "`NAME`, `FILE`", "start from a [shipped recipe](recipes.md) or a `.yaml` file."),
        ("`--print-config`", "flag", "print the resulting recipe, without training."),
        ("`--help`", "`SECTION`", f"print the usual fields, or those of a section; `--help {RECIPES}` lists recipes."),
        ("`--help-all`", "flag", "print all fields."),
    ]
    lines = [
        *("```text", "fastvit train [--recipe NAME|FILE] [--FIELD VALUE ...]", "```", ""),
        *_table(("option", "value", "description"), usual),
        "",
        "Every field of a recipe is an option. `lr` in the section `optim` is the option `--optim.lr`. A boolean field",
        "is a flag: `--compile` sets true, `--no-compile` sets false. A list is written as `[1,2]`.",
        "In a recipe file, the fields of a section are indented below its name, and names have underscores.",
        "",
    ]
    by_task = {task: recipe_sections(parse_recipe(["--task", task])) for task in PACKAGE_TASKS}
    for name in dict.fromkeys(name for sections in by_task.values() for name in sections):
        owners = [task for task, sections in by_task.items() if name in sections]
        fields = by_task[owners[0]][name]
        tasks = (
            "" if len(owners) == len(by_task) else f" Only for the task {' and '.join(f'`{each}`' for each in owners)}."
        )
        about = f"{section_summary(name, fields).capitalize()}." if name == RUN else f"{section_summary(name, fields)}."
        lines += [f"### {'Run' if name == RUN else name} {{ #train-{name} }}", "", about + tasks, ""]
        lines += [*_table(("option", "value", "default", "description"), map(_field, fields)), ""]
    return lines


def _field(field: Field) -> tuple[str, str, str, str]:
    """Return the row of a recipe field."""
    name, last = hyphenated(field.name), field.name.rpartition(".")[2]
    text = field_texts(field.owner).get(last, "")
    if field.kind is bool:
        return f"`--[no-]{name}`", "flag", _code(str(field.value).lower()), text
    kind = Literal[*PACKAGE_TASKS] if name == "task" else field.kind
    return f"`--{name}`", _choices(type_text(hyphenated(last), kind)), _code(_written(field.value)), text


def recipes_page() -> str:
    """Return the page of shipped recipes, by task."""
    lines = [
        "# Recipes",
        "",
        "These recipes are in the package. Start one with `fastvit train --recipe NAME --data DIR`. Each name links to",
        "the file, whose first lines give its source, command and cost. [Training](../training.md) explains how to",
        "change a recipe.",
        "",
    ]
    for task in PACKAGE_TASKS:
        names = [name for name in recipe_names() if (recipe_task(name) or DEFAULT_TASK) == task]
        rows = []
        for name in names:
            title, facts = _header(recipe_path(name))
            link = f"[`{name}`]({SOURCE}/fastvit/recipes/{name}.yaml)"
            rows.append((link, title, facts.get("Cost", ""), facts.get("Expected", "")))
        lines += [f"## {task}", "", *_table(("recipe", "description", "cost", "expected result"), rows), ""]
    return _page(lines)


def _header(path: Path) -> tuple[str, dict[str, str]]:
    """Return the first line of a recipe file and the facts below it, such as "Cost", by name."""
    comment = []
    for line in path.read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            break
        comment.append(line.removeprefix("#").removeprefix(" "))
    facts: dict[str, str] = {}
    name = ""
    for line in comment[2:]:
        if not line.strip():
            break
        if not line.startswith(" "):
            name, _, line = line.partition(":")
        facts[name] = f"{facts.get(name, '')} {line.strip()}".strip()
    return comment[0], facts


def environment_page() -> str:
    """Return the page of environment variables."""
    rows = [(f"`{name}`", text) for name, text in VARIABLES.items()]
    return _page(
        [
            "# Environment variables",
            "",
            "The package reads these variables. All of them may be left unset.",
            "",
            *_table(("variable", "description"), rows),
            "",
            "Libraries that the package uses read variables of their own. Examples are `HF_TOKEN`, `HF_HOME` and",
            "`HF_HUB_OFFLINE` of huggingface_hub, `OMP_NUM_THREADS` and `CUDA_VISIBLE_DEVICES` of PyTorch, and",
            "`NO_COLOR` of rich. Their documentation describes them.",
        ]
    )


def exceptions_page() -> str:
    """Return the page of public exceptions."""
    found = [each for each in vars(errors).values() if inspect.isclass(each) and issubclass(each, Exception)]
    lines = [
        "# Exceptions",
        "",
        "Errors that you can fix raise `fastvit.UserError`, in Python and on the command line. The message names the",
        "file, option or field, and what to do. Any other exception is a bug in the package, a failure of the machine,",
        "or a mistake in the code that calls the package.",
        "",
    ]
    for each in found:
        bases = ", ".join(f"`{base.__name__}`" for base in each.__bases__)
        name = f"{'fastvit' if each.__name__ in fastvit.__all__ else each.__module__}.{each.__name__}"
        lines += [f"## {name} {{ #{each.__name__} }}", "", f"Base: {bases}", "", inspect.getdoc(each) or "", ""]
    codes = [
        ("0", "success"),
        ("1", "an unexpected error, with a traceback"),
        (
            "2",
            "an error that you can fix: a `UserError` in one line on stderr, or images, models or exports that failed "
            "while the others succeeded",
        ),
        ("130", "interrupted (Ctrl-C); an interrupted training run prints how to resume it"),
        ("143", "training was terminated (SIGTERM); it prints how to resume the run"),
    ]
    return _page([*lines, "## Exit codes of the command", "", *_table(("exit code", "meaning"), codes)])


PAGES: dict[str, Callable[[], str]] = {
    "commands.md": commands_page,
    "recipes.md": recipes_page,
    "environment.md": environment_page,
    "exceptions.md": exceptions_page,
}


def _summary(function: Callable[..., Any]) -> str:
    return (inspect.getdoc(function) or "").splitlines()[0]


def _anchor(command: str) -> str:
    return command.replace(" ", "-")


def _choices(metavar: str) -> str:
    """Return a placeholder of a value, or its choices, as code."""
    parts = [part for each in metavar.split("|") for part in (each[1:-1].split(",") if each[0] == "{" else [each])]
    return ", ".join(map(_code, parts))


def _written(value: object) -> str:
    """Return a value as it is written on the command line."""
    if value is None:
        return "null"
    return f"[{','.join(map(str, value))}]" if isinstance(value, tuple) else str(value)


def _code(text: str) -> str:
    return f"`{text}`" if text else ""


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Return the lines of a Markdown table."""
    escaped = [[" ".join(cell.split()).replace("|", "\\|").replace("<", "&lt;") for cell in row] for row in rows]
    return [f"| {' | '.join(row)} |" for row in (header, ["---"] * len(header), *escaped)]


def _page(lines: Iterable[str]) -> str:
    """Return a page with a note in front for whoever edits it."""
    note = "<!-- Written by scripts/write_reference.py from the code: change the code, and run it again. -->"
    return "\n".join([note, "", *lines]).rstrip() + "\n"


def main() -> int:
    """Write the pages or check them; return the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing; fail if a page differs from the code")
    check = parser.parse_args().check
    pages = {FOLDER / name: page() for name, page in PAGES.items()}
    different = [path for path, text in pages.items() if not path.exists() or path.read_text(encoding="utf-8") != text]
    for path in different:
        if not check:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(pages[path], encoding="utf-8")
        print(f"{path.name} {'differs from the code: run python scripts/write_reference.py' if check else 'written'}")
    return 1 if check and different else 0


if __name__ == "__main__":
    sys.exit(main())
