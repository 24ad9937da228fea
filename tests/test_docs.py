"""The examples in the documentation run as they stand, and its links and tables hold."""

from __future__ import annotations

import json
import re
import shlex
import tomllib
from pathlib import Path
from typing import Any

import pytest

import fastvit
from fastvit import renames
from fastvit.cli.commands import COMMANDS, find_command
from fastvit.cli.parser import command_parser, parse
from fastvit.model.variants import VARIANTS
from fastvit.training.fields import recipe_fields
from fastvit.training.options import Recipe
from fastvit.training.recipe import load_recipe, parse_recipe
from fastvit.training.resume import CHANGEABLE

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
# Without examples in Python.
OTHER_PAGES = [ROOT / name for name in ("CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md")]


# These quantize networks.
LONG = ("quantization.md",)


@pytest.mark.parametrize(
    "page", [pytest.param(p, marks=[pytest.mark.slow] if p.name in LONG else [], id=p.name) for p in PAGES]
)
def test_examples_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FASTVIT_CACHE", str(tmp_path / "cache"))
    names: dict[str, object] = {}
    blocks = re.findall(r"^```python\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE)
    assert blocks
    if page.name == "weights.md":
        # The first block fetches released weights, which test_hub.py does from a local server.
        assert "pretrained=True" in blocks[0]
        blocks[0] = 'import fastvit\nmodel = fastvit.create_model("fastvit_t8")'
    for block in blocks:
        exec(compile(block, page.name, "exec"), names)


def shown_commands() -> list[tuple[str, str]]:
    """The commands in consoles of the pages, with the names of the pages; continued lines are joined."""
    found = []
    for page in PAGES:
        for block in re.findall(r"^```console\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE):
            lines = re.findall(r"^\$ fastvit (.*)$", block.replace("\\\n", " "), re.MULTILINE)
            found += [(page.name, line) for line in lines]
    return found


@pytest.mark.parametrize(("page", "line"), shown_commands())
def test_commands_are_spelled_right(page: str, line: str) -> None:
    """Each command and option exists, and is written in one style: hyphens, and flags without a value."""
    words = shlex.split(line, comments=True)
    command, arguments = find_command(words)
    assert not any("_" in word.partition("=")[0] for word in words if word.startswith("--"))
    if command == "train":  # a run to resume is not there
        parse_recipe(["--out" if word == "--resume" else word for word in arguments])
        assert not {"true", "false"} & set(words)
    else:
        parse(command, COMMANDS[command], arguments)


@pytest.mark.parametrize("page", [*PAGES, *OTHER_PAGES], ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\((?!https?://|#)([^)#]+)", page.read_text()):
        assert (page.parent / target).exists(), target


@pytest.mark.parametrize("page", ["README.md", "docs/models.md"])
def test_tables_agree_with_the_code(page: str) -> None:
    shown: dict[str, list[str]] = {}  # the cells of a variant, of all tables
    for name, cells in re.findall(r"^\| `(fastvit_\w+)` \|(.*)\|$", (ROOT / page).read_text(), re.MULTILINE):
        shown.setdefault(name, []).extend(cell.strip() for cell in cells.split("|"))
    assert len(shown) == 7
    for name, found in shown.items():
        row = VARIANTS[name]
        sizes = f"{row.params / 1e6:.2f}", f"{row.params_fused / 1e6:.2f}", f"{row.gmacs:.2f}"
        assert found[-6:] == [*sizes, str(row.top1), str(row.top1_distilled), str(row.iphone_ms)]


def table_rows(page: str, header: str) -> list[list[str]]:
    """The cells of all tables of a page that have this header."""
    text = (ROOT / "docs" / page).read_text()
    tables = [part.partition("\n\n")[0] for part in text.split(f"{header}\n|---")[1:]]
    return [[cell.strip() for cell in row.strip("|").split("|")] for table in tables for row in table.splitlines()[1:]]


def test_the_changelog_has_this_version_and_every_rename() -> None:
    changelog = (ROOT / "CHANGELOG.md").read_text()
    versions = re.findall(r"^## (\S+)", changelog, re.MULTILINE)
    assert versions[0] == fastvit.__version__
    named = dict(re.findall(r"^\| `([^`]*)` \| `([^`]*)` \|$", changelog, re.MULTILINE))
    commands = {f"fastvit {old}": f"fastvit {new}" for old, new in renames.COMMANDS.items()}
    options = {
        f"fastvit {command} --{old}": f"fastvit {command} --{new}"
        for command, changed in renames.OPTIONS.items()
        for old, new in changed.items()
    }
    values = {
        f"{field}: {old}": f"{renames.FIELDS[field]}: {new}"
        for field, changed in renames.VALUES.items()
        for old, new in changed.items()
    }
    in_files = {
        f"{field}: {old}": f"{field}: {new}"
        for field, changed in (("form", renames.FORMS), ("input", renames.INPUTS), ("resize", renames.RESIZES))
        for old, new in changed.items()
    }
    expected = {**renames.FIELDS, **commands, **options, **values, **in_files, **renames.TITLES}
    assert {old: named.get(old) for old in expected} == expected
    assert set(renames.OLD_FILES) <= set(named)


def test_the_import_order_is_the_contract() -> None:
    contract = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"][0]
    page = (ROOT / "docs" / "architecture.md").read_text()
    (block,) = re.findall(r"^```text\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
    assert block.splitlines() == contract["layers"]
    tables = page.partition("## Where everything lives")[2].partition("## Import order")[0]
    first_cells = "".join(re.findall(r"^\| (`[^|]*) \|", tables, re.MULTILINE))
    listed = {name.rstrip("/").removesuffix(".py") for name in re.findall(r"`([^`]+)`", first_cells)}
    assert listed == {name for layer in contract["layers"] for name in layer.split(" | ")}


def test_the_recipes_differ_as_the_table_says() -> None:
    rows = table_rows("training.md", "| variant | drop path | drop path, distilled | mixup | mixup, distilled |")
    assert len(rows) == 7
    for variant, *cells in rows:
        recipes = [load_recipe(f"imagenet-{variant}{kind}") for kind in ("", "-distilled")]
        expected = [recipe.model.drop_path for recipe in recipes] + [recipe.mixup.mixup for recipe in recipes]
        assert [float(cell) for cell in cells] == expected


def default_text(value: Any) -> str:
    """A default as the tables have it: as in a recipe file, with at most five digits."""
    if isinstance(value, (tuple, list)):
        return f"[{', '.join(map(default_text, value))}]"
    if isinstance(value, float):
        value = float(f"{value:.5g}")
    return str(value) if isinstance(value, (str, Path)) else json.dumps(value)


@pytest.mark.parametrize("page", ["training.md", "clusters.md"])
def test_tables_of_fields_have_the_defaults_of_the_code(page: str) -> None:
    defaults = {field.name: default_text(field.value) for field in recipe_fields(Recipe())}
    rows = table_rows(page, "| field | default | meaning |")
    shown = {name: default.strip("`") for names, default, _ in rows for name in re.findall(r"`([^`]+)`", names)}
    assert shown == {name: defaults.get(name) for name in shown}
    if page == "training.md":
        assert shown.keys() == defaults.keys()


def test_fields_that_a_resumed_run_may_change_are_listed() -> None:
    rows = table_rows("training.md", "| field | condition |")
    assert {name for names, _ in rows for name in re.findall(r"`([^`]+)`", names)} == CHANGEABLE


@pytest.mark.parametrize(
    ("page", "commands"),
    [("evaluation.md", ["eval", "compare"]), ("robustness.md", ["robustness"]), ("fusion.md", ["fuse"])],
)
def test_tables_have_all_options_of_the_commands(page: str, commands: list[str]) -> None:
    rows = table_rows(page, "| option | default | meaning |")
    shown = {name for names, *_ in rows for name in re.findall(r"`([^`]+)`", names)}
    options = {name for each in commands for name in command_parser(each, COMMANDS[each]).option_names}
    assert shown == options - {"-h", "--help"}
