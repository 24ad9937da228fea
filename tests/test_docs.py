"""The examples in the documentation run as they stand, and its links and tables hold."""

from __future__ import annotations

import re
import shlex
import tomllib
from pathlib import Path

import pytest

import fastvit
from fastvit import renames
from fastvit.cli.commands import COMMANDS, find_command
from fastvit.cli.parser import parse
from fastvit.model.variants import VARIANTS
from fastvit.training.recipe import load_recipe, parse_recipe

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
    rows = re.findall(r"^\| `(fastvit_\w+)` \|(.*)\|$", (ROOT / page).read_text(), re.MULTILINE)
    assert len(rows) == 7
    for name, cells in rows:
        row = VARIANTS[name]
        sizes = f"{row.params / 1e6:.2f}", f"{row.params_fused / 1e6:.2f}", f"{row.gmacs:.2f}"
        expected = [*sizes, str(row.top1), str(row.top1_distilled), str(row.iphone_ms)]
        assert [cell.strip() for cell in cells.split("|")][-6:] == expected


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
    table = (ROOT / "docs" / "training.md").read_text().partition("| | t8 |")[2].partition("\n\n")[0]
    header, _, *rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in ("t8 |" + table).splitlines()]
    assert len(rows) == 4
    for title, *cells in rows:
        kind = "-distilled" if "distilled" in title else ""
        for variant, cell in zip(header, cells, strict=True):
            recipe = load_recipe(f"imagenet-{variant}{kind}")
            assert float(cell) == (recipe.model.drop_path if "drop path" in title else recipe.mixup.mixup)
