"""Help, docstrings of public names and documentation use the field's terms: see retired_words.txt."""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import docstring_parser
import pytest

from fastvit.cli.commands import COMMANDS
from fastvit.cli.main import main
from fastvit.cli.parser import command_parser
from fastvit.cli.train_help import ALL, RECIPES, field_texts, help_page
from fastvit.renames import COMMANDS as OLD_COMMANDS
from fastvit.renames import FIELDS
from fastvit.tasks.table import TASKS
from fastvit.training.fields import recipe_fields
from fastvit.training.recipe import parse_recipe
from tests.test_reference import entries

ROOT = Path(__file__).parent.parent
PAGES = [*(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md")), *(ROOT / "docs").rglob("*.md")]
# Written from texts that are tested here themselves.
WRITTEN = ("commands.md", "exceptions.md", "environment.md")


@cache
def retired() -> dict[re.Pattern[str], str]:
    """What to write instead, by the pattern of a retired word."""
    lines = (ROOT / "tests" / "retired_words.txt").read_text(encoding="utf-8").splitlines()
    rows = [line.split(" -> ", 1) for line in lines if line and not line.startswith("#")]
    # An old name of one word, such as "nodes", is also a word of the text, or an option of another program.
    for old, new in FIELDS.items():
        if "." in old or "_" in old:
            name = re.escape(old).replace("_", "[_-]")
            rows.append([rf"(?<![\w.]){name}(?![\w-])", new])
    rows += [[rf"\bfastvit {old}\b", f"fastvit {new}"] for old, new in OLD_COMMANDS.items()]
    return {re.compile(pattern, re.IGNORECASE): better for pattern, better in rows}


def findings(text: str) -> list[str]:
    """The retired words in a text, each with its line and what to write instead."""
    found = []
    for number, line in enumerate(text.splitlines(), 1):
        for pattern, better in retired().items():
            found += [f"line {number}: {match[0]!r}, instead: {better}" for match in pattern.finditer(line)]
    return found


def test_the_list_finds_words() -> None:
    assert findings("images held\nout, and held-out ones") == ["line 2: 'held-out', instead: validation"]
    assert len(findings("fastvit train --allow-damaged --mixing.smoothing 0.1, then fastvit scenes")) == 4
    assert not findings(
        "--nodes, there is no ground truth, --optim.clip-grad, optim.clip_grad and fastvit synth scenes"
    )


@pytest.mark.parametrize("page", [p for p in PAGES if p.name not in WRITTEN], ids=lambda p: str(p.relative_to(ROOT)))
def test_words_of_a_page(page: Path) -> None:
    assert not findings(page.read_text(encoding="utf-8"))


@pytest.mark.parametrize("command", [name for name in COMMANDS if name != "train"])
def test_words_of_a_command(command: str) -> None:
    """Nor is an option without a text, and no text begins with "of"."""
    parser = command_parser(command, COMMANDS[command])
    assert not findings(parser.format_help())
    assert not faults(COMMANDS[command])
    assert not [action.dest for action in parser._actions if not action.help]


@pytest.mark.parametrize("task", list(TASKS))
def test_words_of_train(task: str) -> None:
    recipe = parse_recipe(["--task", task])
    about = inspect.getdoc(COMMANDS["train"]) or ""
    assert not findings("\n".join(help_page(recipe, page, about) for page in ("", ALL, RECIPES)))
    for field in recipe_fields(recipe):
        text = field_texts(field.owner).get(field.name.rpartition(".")[2], "")
        assert text, field.name
        assert not text.lower().startswith("of "), field.name


def test_words_of_the_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    assert not findings(capsys.readouterr().out)


def documented(name: str) -> Iterator[Any]:
    """Yield the object of a reference entry, and its public methods and properties."""
    module, _, attribute = name.rpartition(".")
    try:
        found = getattr(importlib.import_module(module), attribute)
    except AttributeError:
        found = importlib.import_module(name)
    if callable(found) or inspect.ismodule(found):  # not a table, which has the text of its type
        yield found
    if inspect.isclass(found):
        for own, member in vars(found).items():
            if not own.startswith("_") and (callable(member) or isinstance(member, (property, classmethod))):
                yield member


def faults(documented: Callable[..., Any]) -> list[str]:
    """The summary and the texts of parameters and attributes that begin with "Of"."""
    docs = docstring_parser.parse(inspect.getdoc(documented) or "")
    texts = {"summary": docs.short_description, **{param.arg_name: param.description for param in docs.params}}
    return [f"{name}: {text}" for name, text in texts.items() if (text or "").lower().startswith("of ")]


@pytest.mark.parametrize("name", sorted(entries()))
def test_words_of_a_public_name(name: str) -> None:
    found = {str(each): [*findings(inspect.getdoc(each) or ""), *faults(each)] for each in documented(name)}
    assert not {each: some for each, some in found.items() if some}
