"""The examples in the documentation run as they stand, and its links and tables hold."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from fastvit.model.variants import VARIANTS
from fastvit.training.recipe import load_recipe

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
# Without examples in Python.
OTHER_PAGES = [ROOT / name for name in ("CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md")]


# These quantise networks.
LONG = ("quantization.md",)


@pytest.mark.parametrize(
    "page", [pytest.param(p, marks=[pytest.mark.slow] if p.name in LONG else [], id=p.name) for p in PAGES]
)
def test_examples_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    blocks = re.findall(r"^```python\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE)
    assert blocks
    if page.name == "weights.md":
        # The first block fetches released weights, which test_hub.py does from a local server.
        assert "pretrained=True" in blocks[0]
        blocks[0] = 'import fastvit\nmodel = fastvit.create_model("fastvit_t8")'
    for block in blocks:
        exec(compile(block, page.name, "exec"), names)


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


def test_the_recipes_differ_as_the_table_says() -> None:
    table = (ROOT / "docs" / "training.md").read_text().partition("| | t8 |")[2].partition("\n\n")[0]
    header, _, *rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in ("t8 |" + table).splitlines()]
    assert len(rows) == 4
    for title, *cells in rows:
        kind = "-distilled" if "distilled" in title else ""
        for variant, cell in zip(header, cells, strict=True):
            recipe = load_recipe(f"imagenet-{variant}{kind}")
            assert float(cell) == (recipe.model.drop_path if "drop path" in title else recipe.mixing.mixup)
