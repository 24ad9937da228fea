"""What TensorRT is given: the ONNX file, checked in onnxruntime, and the line that builds the engine from it."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import onnx
import pytest
import torch

import fastvit
from fastvit.export.export import export
from fastvit.export.options import ExportOptions
from fastvit.export.proof import TOLERANCES, prove_outputs
from fastvit.export.target import TARGETS
from fastvit.runtime.artifact import Precision, open_artifact
from tests.helpers import noise_pictures, randomize, tiny

TENSORRT = TARGETS["tensorrt"]


@pytest.fixture(scope="module")
def model() -> fastvit.FastViT:
    torch.manual_seed(0)
    return randomize(tiny(attention=True))


@pytest.mark.parametrize(
    ("precision", "element"), [("fp32", onnx.TensorProto.FLOAT), ("fp16", onnx.TensorProto.FLOAT16)]
)
def test_a_file_of_its_types_and_a_line(
    model: fastvit.FastViT, tmp_path: Path, precision: Precision, element: int
) -> None:
    path = tmp_path / "model.trt.onnx"
    exported = export(model, TENSORRT, path, noise_pictures(2), ExportOptions(precision, size=(64, 32)))
    assert exported.proof is None
    assert "written, not run" in str(exported)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["model.trt.onnx", "model.trt.txt"]
    exact = ["--noTF32"] if precision == "fp32" else []
    line = (tmp_path / "model.trt.txt").read_text().split()
    assert line == ["trtexec", "--onnx=model.trt.onnx", "--saveEngine=model.engine", "--stronglyTyped", *exact]
    graph = onnx.load(path).graph
    weights = {one.data_type for one in graph.initializer if len(one.dims) == 4}
    assert weights == {element}, "a strongly typed network computes in the types of its file"
    proof = prove_outputs(model, open_artifact(path), noise_pictures(2))
    assert not TOLERANCES[precision].missed(proof)


@pytest.mark.slow
def test_open_shapes(model: fastvit.FastViT, tmp_path: Path) -> None:
    model.preprocessing = dataclasses.replace(model.preprocessing, size=(96, 64))
    options = ExportOptions(batch="dynamic", size="dynamic", input="pixels")
    export(model, TENSORRT, tmp_path / "model.trt.onnx", noise_pictures(2), options)
    line = (tmp_path / "model.trt.txt").read_text()
    for shape in ("--minShapes=images:1x3x32x32", "--optShapes=images:8x3x96x64", "--maxShapes=images:64x3x192x128"):
        assert shape in line
    options = ExportOptions(batch="dynamic", size=(64, 64))
    export(model, TENSORRT, tmp_path / "model.trt.onnx", noise_pictures(2), options)
    assert "--minShapes=images:1x3x64x64" in (tmp_path / "model.trt.txt").read_text()


def test_what_is_not_offered(model: fastvit.FastViT, tmp_path: Path) -> None:
    with pytest.raises(fastvit.UserError, match="tensorrt does not support int8; it supports fp32, fp16"):
        export(model, TENSORRT, tmp_path / "model.trt.onnx", noise_pictures(2), ExportOptions("int8"))
