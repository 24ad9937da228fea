"""The public face."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import fastvit
from fastvit.tasks.table import TASKS


def modules_after(program: str) -> set[str]:
    code = f"import sys\n{program}\nprint('MODULES', *sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split("MODULES", 1)[1].split())


def test_public_names_resolve_and_are_listed() -> None:
    for name in fastvit.__all__:
        assert getattr(fastvit, name) is not None
    assert dir(fastvit) == sorted(fastvit.__all__)
    assert callable(fastvit.fuse)


def test_importing_is_light() -> None:
    """torch alone at most, and not even that before it is needed."""
    heavy = {"torch", "timm", "torchvision", "lightning", "onnxruntime", "onnx", "matplotlib", "huggingface_hub"}
    assert not heavy & modules_after("import fastvit")
    assert not heavy & modules_after("from fastvit.cli.main import main\nmain(['--help'])\nmain(['models'])")
    assert not (heavy - {"torch"}) & modules_after(
        "import fastvit\nfastvit.fuse(fastvit.FastViT(fastvit.FastViTConfig((fastvit.Stage(16, 1),))))"
    )
    assert not (heavy - {"torch"}) & modules_after("import fastvit\nfastvit.create_model('t8')")


def test_the_table_of_tasks_needs_little() -> None:
    """Packages below the tasks may import the table and the protocol, which know them by type annotations alone."""
    loaded = modules_after("from fastvit.tasks.table import all_tasks\nall_tasks()")
    own = {name.split(".")[1] for name in loaded if name.startswith("fastvit.")}
    base = {"arguments", "errors", "files", "plugins", "ranges", "renames", "variables", "version"}
    assert own <= {"tasks", "reports", "data", *base}
    assert "torch" not in loaded


def lines_that_name_a_task() -> list[str]:
    """Imports from a task's package, and strings that are a task's name, in the modules outside of tasks/."""
    package, found = Path(fastvit.__file__).parent, []
    for path in sorted(package.rglob("*.py")):
        inside = path.relative_to(package)
        if inside.parts[0] == "tasks":
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            named = isinstance(node, ast.Constant) and node.value in TASKS
            if isinstance(node, ast.ImportFrom):
                named = any(f"{node.module}.".startswith(f"fastvit.tasks.{task}.") for task in TASKS)
            if named:
                found.append(f"{inside.as_posix()}:{node.lineno}")
    return found


def test_hardly_a_line_outside_of_the_tasks_names_one() -> None:
    """The classifier's own name, the story of quickstart, the command for hands, and a field of COCO's."""
    found = lines_that_name_a_task()
    assert len(found) <= 5, found
    assert {line.partition(":")[0] for line in found} <= {
        "model/classifier.py",
        "quickstart.py",
        "cli/synth/hands.py",
        "synthetic/scenes.py",
    }
