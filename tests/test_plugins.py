"""Plugins that cannot be loaded, beside one that can; each in a fresh process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import fastvit

MODULES = {
    "good": """
import fastvit
config = fastvit.create_model("t8").config
fastvit.register_variant(fastvit.Variant("good_t8", config))
""",
    "broken": "import fastvit, not_there_at_all",
    "leaving": "import sys; sys.exit(3)",
}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    for name, text in MODULES.items():
        (folder / f"{name}.py").write_text(text)
        info = folder / f"{name}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[fastvit.plugins]\n{name} = {name}\n")
    return folder


def run(site: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    paths = os.pathsep.join([str(site), str(Path(fastvit.__file__).parent.parent)])
    environment = {**os.environ, "PYTHONPATH": paths}
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, env=environment, check=False)


def test_a_plugin_that_cannot_be_loaded_keeps_no_other_from_it(site: Path) -> None:
    done = run(site, "-m", "fastvit", "models", "good*")
    assert done.returncode == 0
    assert "good_t8" in done.stdout
    assert " -" in done.stdout, "nobody has counted it"
    for name, error in (("broken", "ModuleNotFoundError"), ("leaving", "SystemExit: 3")):
        assert f"the plugin {name} ({name}) of {name} cannot be loaded: {error}" in done.stderr


def test_an_unknown_name_tells_of_it_each_time(site: Path) -> None:
    program = """
import fastvit
for _ in range(2):
    try:
        fastvit.create_model("zzz")
    except fastvit.UserError as error:
        print(error)
"""
    done = run(site, "-c", program)
    first, second = done.stdout.splitlines()
    assert first == second
    assert "good_t8" in first
    assert "the plugin broken (broken) of broken cannot be loaded" in first
