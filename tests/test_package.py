"""The public face."""

from __future__ import annotations

import subprocess
import sys

import fastvit


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
