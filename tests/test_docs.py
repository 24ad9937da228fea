"""The examples in the documentation run as they stand, and its links and tables hold."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import tomllib
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import fastvit
from fastvit import renames
from fastvit.cli.commands import COMMANDS, find_command
from fastvit.cli.parser import command_parser, parse
from fastvit.export.export import export
from fastvit.export.options import ExportOptions
from fastvit.export.target import TARGETS
from fastvit.model.variants import VARIANTS
from fastvit.training.fields import recipe_fields
from fastvit.training.options import Recipe
from fastvit.training.recipe import load_recipe, parse_recipe
from fastvit.training.resume import CHANGEABLE

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
# Without examples in Python.
OTHER_PAGES = [ROOT / name for name in ("CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md")]


# The repository, where README's links lead: it is also shown by PyPI, which has none of the other files.
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
REPOSITORY = PROJECT["urls"]["Source"]
FILES = (f"{REPOSITORY}/blob/main/", f"{REPOSITORY.replace('github.com', 'raw.githubusercontent.com')}/main/")

# These quantize networks.
LONG = ("quantization.md",)
# The first line of an example that needs a package or a device that the tests do not have, with the reason.
NOT_RUN = re.compile(r"# .*\(not run by the tests: .+\)\n")


@pytest.fixture(scope="session")
def tutorial_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the commands of the tutorials leave behind, from untrained networks, for the examples after them."""
    folder = tmp_path_factory.mktemp("tutorials")
    scenes, hands = folder / "data/scenes/images/val", folder / "data/hands/evaluation/rgb"
    photos, runs = folder / "photos/val/cat", folder / "runs"
    for path in (scenes / "000000.png", hands / "00000000.jpg", photos / "1.jpg"):
        path.parent.mkdir(parents=True)
        Image.new("RGB", (96, 64), "teal").save(path)
    classifier = fastvit.create_model("fastvit_t8", classes=("cat", "horse"), preprocessing={"size": (64, 64)})
    models = {
        "photos": classifier,
        "scenes-detection": fastvit.create_detector("fastvit_t8", classes=["bag"], kind="faster_rcnn", fpn_channels=32),
        "scenes-segmentation": fastvit.create_segmenter("fastvit_t8", classes=["bag", "shoe"]),
        "hand-small": fastvit.create_hand_regressor("fastvit_t8"),
    }
    for name, model in models.items():
        (runs / name).mkdir(parents=True)
        fastvit.save(model.eval(), runs / name / "best.safetensors")
    exported = runs / "photos/best-export/fastvit_t8-fp32.onnx"
    exported.parent.mkdir()
    export(classifier, TARGETS["onnx"], exported, [Image.open(photos / "1.jpg")], ExportOptions(batch="dynamic"))
    return folder


def python_blocks(page: Path) -> list[str]:
    """The examples in Python of a page."""
    return re.findall(r"^```python\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize(
    "page",
    [
        pytest.param(p, marks=[pytest.mark.slow] if p.name in LONG else [], id=str(p.relative_to(ROOT)))
        for p in PAGES
        if python_blocks(p)
    ],
)
def test_examples_run(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FASTVIT_CACHE", str(tmp_path / "cache"))
    if page.parent.name == "tutorials":
        shutil.copytree(request.getfixturevalue("tutorial_files"), tmp_path, dirs_exist_ok=True)
    names: dict[str, object] = {"__name__": page.stem}
    blocks = python_blocks(page)
    if page.name == "weights.md":
        # The first block fetches released weights, which test_hub.py does from a local server.
        assert "pretrained=True" in blocks[0]
        blocks[0] = 'import fastvit\nmodel = fastvit.create_model("fastvit_t8")'
    for block in blocks:
        example = compile(block, page.name, "exec")
        if not NOT_RUN.match(block):
            exec(example, names)


def shown_commands() -> list[tuple[str, str]]:
    """The commands in consoles of the pages, with the names of the pages; continued lines are joined."""
    found = []
    for page in PAGES:
        for block in re.findall(r"^```console\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE):
            lines = re.findall(r"^\$ fastvit (.*)$", block.replace("\\\n", " "), re.MULTILINE)
            found += [(str(page.relative_to(ROOT)), line) for line in lines]
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


@pytest.mark.parametrize("page", [*PAGES, *OTHER_PAGES], ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    """Links to files, relative or by the address of the repository; others are not followed."""
    for target in re.findall(r"\]\(([^)#]+)", page.read_text()):
        folder, path = page.parent, target
        for prefix in FILES:
            if target.startswith(prefix):
                folder, path = ROOT, target.removeprefix(prefix)
        assert re.match("https?://", path) or (folder / path).exists(), target
        assert not path.startswith((REPOSITORY + "/blob", REPOSITORY + "/raw", REPOSITORY + "/tree")), target


def test_links_of_the_readme_work_outside_of_the_repository() -> None:
    links = re.findall(r"\]\(([^)]+)", (ROOT / "README.md").read_text())
    assert links
    assert all(link.startswith(("https://", "#")) for link in links), links


@pytest.mark.parametrize("page", [*PAGES, *OTHER_PAGES], ids=lambda page: str(page.relative_to(ROOT)))
def test_extras_exist_and_are_quoted(page: Path) -> None:
    """zsh takes brackets without quotes for a pattern."""
    for line in re.findall(r"pip install .*", page.read_text()):
        for quote, extras in re.findall(r"(.)(?:fastvit|\.)\[([a-z,]+)\]", line):
            assert quote == '"', line
            assert set(extras.split(",")) <= set(PROJECT["optional-dependencies"]), line


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
