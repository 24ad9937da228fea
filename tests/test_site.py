"""The site: its pages are in the navigation and in llms.txt, and it builds without a warning."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
RAW = "https://raw.githubusercontent.com/fastvit-project/fastvit/main/"


def navigation(entries: list[Any]) -> Iterator[str]:
    """Yield the pages of the navigation, in order."""
    for entry in entries:
        for value in entry.values() if isinstance(entry, dict) else [entry]:
            if isinstance(value, list):
                yield from navigation(value)
            else:
                yield value


PAGES = list(navigation(yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))["nav"]))


def test_each_page_is_in_the_navigation_once() -> None:
    assert sorted(PAGES) == sorted(path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md"))


def test_llms_txt_lists_each_page() -> None:
    """https://llmstxt.org: a title, a summary, and sections of links with a line each."""
    text = (DOCS / "llms.txt").read_text(encoding="utf-8")
    title, _, summary, *lines = text.splitlines()
    assert title.startswith("# ")
    assert summary.startswith("> ")
    links = [re.fullmatch(r"- \[[^]]+\]\(([^)]+)\): \S.*\.", line) for line in lines if line.startswith("- ")]
    assert all(links)
    targets = [link[1] for link in links if link]
    assert all((ROOT / target.removeprefix(RAW)).is_file() for target in targets), targets
    pages = [target.removeprefix(f"{RAW}docs/") for target in targets if target.startswith(f"{RAW}docs/")]
    assert pages == PAGES


def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    """A link, an anchor or a name of the API reference that does not exist is an error."""
    pytest.importorskip("zensical")
    shutil.copytree(DOCS, tmp_path / "docs")
    shutil.copy(ROOT / "mkdocs.yml", tmp_path)
    (tmp_path / "fastvit").symlink_to(ROOT / "fastvit")
    command = [sys.executable, "-m", "zensical", "build", "--strict"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    built = {path.parent.relative_to(tmp_path / "site").as_posix() for path in (tmp_path / "site").rglob("index.html")}
    assert {page.removesuffix(".md").removesuffix("index").rstrip("/") or "." for page in PAGES} == built
    assert (tmp_path / "site" / "llms.txt").is_file()
