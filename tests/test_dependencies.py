"""What the package needs, against what it imports and what is known of old releases."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
REQUIRED = [Requirement(text) for text in PROJECT["dependencies"]]
EXTRAS = {
    name: [Requirement(text) for text in texts if not text.startswith("fastvit")]
    for name, texts in PROJECT["optional-dependencies"].items()
}
DECLARED = [*REQUIRED, *(one for some in EXTRAS.values() for one in some)]

# Module -> the declared distribution that brings it.
BROUGHT = {"triton": "torch", "cuda": "torch"}

# Releases with known vulnerabilities: of each the last one that has it.
VULNERABLE = [
    ("lightning", "2.6.2", "GHSA-w37p-236h-pfx3: steals credentials"),
    ("lightning", "2.6.3", "GHSA-w37p-236h-pfx3: steals credentials"),
    ("lightning", "2.6.5", "CVE-2026-58659"),
    ("pytorch-lightning", "2.6.5", "CVE-2026-58659"),
    ("onnx", "1.20.1", "CVE-2026-27489, CVE-2026-34446, CVE-2026-34447: external data read any file"),
    ("onnxruntime", "1.26.0", "microsoft/onnxruntime#28408: external data of sparse initializers read any file"),
    ("onnxruntime", "1.27.0", "the memory safety fixes of 1.28's model loaders and kernels"),
    ("pillow", "12.3.0", "CVE-2026-96639, CVE-2026-96641: images corrupt memory"),
    ("filelock", "3.20.2", "CVE-2026-22701: follows symbolic links"),
    ("jinja2", "3.1.5", "CVE-2025-27516: leaves the sandbox"),
    ("pyarrow", "23.0.0", "CVE-2026-25087: use after free"),
    ("torch", "2.9.1", "CVE-2026-24747: weights_only corrupts memory"),
]


@pytest.mark.parametrize(("name", "version", "why"), VULNERABLE)
def test_no_vulnerable_release_is_admitted(name: str, version: str, why: str) -> None:
    admitting = [one for one in DECLARED if one.name == name]
    assert admitting
    assert not [one for one in admitting if Version(version) in one.specifier], why


def _imported(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module.partition(".")[0])
    return names


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_what_is_imported_is_declared() -> None:
    modules = set().union(*(_imported(path) for path in (ROOT / "fastvit").rglob("*.py")))
    foreign = modules - set(sys.stdlib_module_names) - {"fastvit"}
    assert len(foreign) > 20
    installed, declared = packages_distributions(), {_normal(one.name) for one in DECLARED}
    brought = {
        module: [BROUGHT[module]] if module in BROUGHT else installed.get(module, [module]) for module in foreign
    }
    assert not {module for module, names in brought.items() if not declared & {_normal(name) for name in names}}
