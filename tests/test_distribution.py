"""What is passed on: the sdist, the wheel, and the files beside the package."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest
import yaml
from hatchling.builders.sdist import SdistBuilder
from hatchling.builders.wheel import WheelBuilder

import fastvit
from fastvit.training.recipe import recipe_names

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def _files(folder: Path) -> set[str]:
    paths = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    return {path.as_posix() for path in paths if "__pycache__" not in path.parts}


def _unpacked_sdist(checkout: Path, out: Path) -> Path:
    (built,) = SdistBuilder(str(checkout)).build(directory=str(out))
    with tarfile.open(built) as archive:
        archive.extractall(out, filter="data")
    return out / f"fastvit-{fastvit.__version__}"


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _unpacked_sdist(ROOT, tmp_path_factory.mktemp("sdist"))


@pytest.fixture(scope="module")
def wheel(sdist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The unpacked wheel, built from the sdist as pip builds it."""
    out = tmp_path_factory.mktemp("wheel")
    (built,) = WheelBuilder(str(sdist)).build(directory=str(out), versions=["standard"])
    zipfile.ZipFile(built).extractall(out / "unpacked")
    return out / "unpacked"


def test_the_commands_of_the_readme_begin_in_the_sdist(sdist: Path) -> None:
    """make finds its file, the targets and all that they are made from; -n, as they would install torch."""
    commands = re.findall(r"^\$ (make [^#\n]+)", (sdist / "README.md").read_text(), re.MULTILINE)
    assert len(commands) == 2
    for command in commands:
        planned = subprocess.run([*command.split(), "-n"], cwd=sdist, capture_output=True, text=True)
        assert planned.returncode == 0, planned.stderr
        extras = "" if "quickstart" in command else "[dev]"  # which needs the package alone
        assert f"-c constraints.txt -e '.{extras}'" in planned.stdout


def test_the_sdist_has_every_file_of_the_checkout(sdist: Path) -> None:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode or not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    tracked = {name for name in listed.stdout.split("\0") if name and (ROOT / name).exists()}
    assert tracked
    assert not tracked - _files(sdist)


def test_the_sdist_leaves_out_what_is_not_the_projects(sdist: Path, tmp_path: Path) -> None:
    """Runs, images and environments beside the package stay where they are; an sdist makes the same sdist."""
    checkout = _unpacked_sdist(sdist, tmp_path / "first")
    for name in (
        "runs/quickstart/best.safetensors",
        "photos/train/cat/1.jpg",
        ".venv/bin/python",
        "docs/__pycache__/a.pyc",
    ):
        (checkout / name).parent.mkdir(parents=True, exist_ok=True)
        (checkout / name).write_bytes(b"mine")
    assert _files(_unpacked_sdist(checkout, tmp_path / "second")) == _files(sdist)


def test_the_wheel_has_every_file_of_the_package(sdist: Path, wheel: Path) -> None:
    found = _files(wheel / "fastvit")
    assert found == _files(sdist / "fastvit")
    assert {"py.typed", "reports/templates/report.html", "recipes/quickstart.yaml"} <= found


def test_the_wheel_works_without_the_checkout(wheel: Path, tmp_path: Path) -> None:
    program = """
import jinja2
import fastvit
from fastvit.training.recipe import recipe_names
print(fastvit.__file__)
print(jinja2.PackageLoader("fastvit.reports").list_templates())
print(recipe_names())
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(wheel)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    file, templates, recipes = done.stdout.splitlines()
    assert Path(file).is_relative_to(wheel)
    assert templates == "['report.html']"
    assert recipes == str(recipe_names()) != "[]"


def test_the_wheel_says_where_the_project_is(wheel: Path) -> None:
    metadata = Parser().parsestr((wheel / f"fastvit-{fastvit.__version__}.dist-info" / "METADATA").read_text())
    urls = dict(line.split(", ") for line in metadata.get_all("Project-URL"))
    assert urls == PROJECT["urls"]
    assert urls.keys() >= {"Source", "Documentation", "Changelog", "Issues"}
    assert all(url.startswith(urls["Source"]) for url in urls.values())


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", "SECURITY.md", "CITATION.cff"])
def test_pages_name_one_address_of_the_project(page: str) -> None:
    named = set(re.findall(r"https://github\.com/[\w.-]+/fastvit\b", (ROOT / page).read_text()))
    assert named <= {PROJECT["urls"]["Source"]}


def test_the_citation_is_of_this_version_and_of_the_paper() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["cff-version"] == "1.2.0"
    assert citation["version"] == fastvit.__version__
    assert (citation["title"], citation["license"]) == (PROJECT["name"], PROJECT["license"])
    assert citation["repository-code"] == PROJECT["urls"]["Source"]
    assert citation["message"]
    assert citation["authors"]
    (paper,) = citation["references"]
    assert paper["url"] in (ROOT / "README.md").read_text()
    assert [author["family-names"] for author in paper["authors"]] == ["Vasu", "Gabriel", "Zhu", "Tuzel", "Ranjan"]


def test_the_workflow_runs_what_ci_runs() -> None:
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())
    assert workflow["permissions"] == {"contents": "read"}
    (job,) = workflow["jobs"].values()
    assert [step["run"] for step in job["steps"] if "run" in step] == [".ci/run"]
    assert os.access(ROOT / ".ci" / "run", os.X_OK)
    assert job["timeout-minutes"] <= 60
    assert all(re.fullmatch(r"actions/[\w-]+@v\d+", step["uses"]) for step in job["steps"] if "uses" in step)
    versions = [line.rpartition(" ")[2] for line in PROJECT["classifiers"] if re.search(r":: 3\.\d+$", line)]
    assert job["strategy"]["matrix"]["python-version"] == versions


def test_the_hooks_are_of_make_lint() -> None:
    """They run the same ruff and codespell in the same environment: one accepts what the other accepts."""
    (local,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    assert local["repo"] == "local"
    lint = (ROOT / "Makefile").read_text().partition("\nlint:")[2].partition("\n\n")[0].replace("$(BIN)", ".venv/bin")
    hooks = {" ".join(hook["entry"].split()[:2]) for hook in local["hooks"]}
    quick = {".venv/bin/ruff format", ".venv/bin/ruff check", ".venv/bin/codespell"}
    assert hooks == set(re.findall(r"\.venv/bin/(?:ruff \w+|codespell)", lint)) == quick
