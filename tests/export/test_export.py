"""Artifacts are proved: equal where they are, refused where they are not."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

import fastvit
from fastvit.export.target import TARGETS, export, find_target
from fastvit.numerics import compare
from tests.helpers import randomise, tiny

ONNX = TARGETS["onnx"]


@pytest.fixture(scope="module")
def model() -> fastvit.FastViT:
    torch.manual_seed(0)
    return randomise(tiny(attention=True, classes=[f"class {i}" for i in range(10)]))


@pytest.fixture(scope="module")
def artifact(model: fastvit.FastViT, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("onnx") / "model.onnx"
    exported = export(model, ONNX, path, torch.randn(4, 3, 64, 64))
    assert exported.differences.relative < 1e-5
    assert exported.images == 4
    return path


@pytest.mark.parametrize("shape", [(1, 3, 32, 32), (5, 3, 64, 64), (2, 3, 33, 95)])
def test_any_batch_and_size(model: fastvit.FastViT, artifact: Path, shape: tuple[int, ...]) -> None:
    images = torch.randn(shape)
    with torch.inference_mode():
        assert compare(model(images), ONNX.load(artifact)(images.numpy())).relative < 1e-4


def test_no_norm_is_left_and_the_file_describes_itself(model: fastvit.FastViT, artifact: Path) -> None:
    proto = onnx.load(artifact)
    onnx.checker.check_model(proto)
    assert "BatchNormalization" not in {node.op_type for node in proto.graph.node}
    info = json.loads({p.key: p.value for p in proto.metadata_props}["fastvit"])
    assert info["classes"] == list(model.classes or ())
    assert info["form"] == "fused"
    assert [p.name for p in artifact.parent.iterdir()] == ["model.onnx"], "one file, weights inside"


@pytest.mark.parametrize("variant", ["t8", "sa12"])
def test_variants(variant: str, tmp_path: Path) -> None:
    full = randomise(fastvit.create_model(variant, num_classes=5)).eval()
    assert export(full, ONNX, tmp_path / "model.onnx", torch.randn(2, 3, 64, 64)).differences.relative < 1e-4


def test_a_wrong_artifact_fails_the_export(model: fastvit.FastViT, tmp_path: Path, monkeypatch) -> None:
    other = fastvit.fuse(randomise(tiny(attention=True), seed=5))
    monkeypatch.setattr("fastvit.export.target.fuse", lambda _: other)
    (tmp_path / "model.onnx").write_text("the previous one")
    with pytest.raises(fastvit.UserError, match="would not compute what the model does in onnxruntime"):
        export(model, ONNX, tmp_path / "model.onnx", torch.randn(2, 3, 64, 64))
    assert [p.name for p in tmp_path.iterdir()] == ["model.onnx"]
    assert (tmp_path / "model.onnx").read_text() == "the previous one"


def test_wrong_names_and_files(model: fastvit.FastViT, artifact: Path, tmp_path: Path) -> None:
    with pytest.raises(fastvit.UserError, match="no export target is called 'coffee'; there are onnx"):
        find_target("coffee")
    with pytest.raises(fastvit.UserError, match=r"end in \.onnx"):
        export(model, ONNX, tmp_path / "model.pt", torch.randn(2, 3, 64, 64))
    with pytest.raises(fastvit.UserError, match="there is no file"):
        ONNX.load(tmp_path / "none.onnx")
    (tmp_path / "short.onnx").write_bytes(artifact.read_bytes()[:1000])
    with pytest.raises(fastvit.UserError, match=r"onnxruntime cannot read .*short.onnx"):
        ONNX.load(tmp_path / "short.onnx")


def test_wrong_shapes_are_an_error_not_an_answer(artifact: Path) -> None:
    with pytest.raises(Exception, match="images"):
        ONNX.load(artifact)(np.zeros((1, 4, 64, 64), np.float32))
