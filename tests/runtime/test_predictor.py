"""One call for a model, a checkpoint and an artifact."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import fastvit
from fastvit.export.target import TARGETS
from fastvit.runtime.predictor import Failure, Prediction
from tests.helpers import randomise, tiny


@pytest.fixture(scope="module")
def model() -> fastvit.FastViT:
    torch.manual_seed(0)
    return randomise(tiny(num_classes=3, classes=["cat", "dog", "cow"], preprocessing=fastvit.Preprocessing((48, 48))))


@pytest.fixture(scope="module")
def files(model: fastvit.FastViT, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("predictor")
    TARGETS["onnx"].write(fastvit.fuse(model), folder / "model.onnx")
    return {
        "train": fastvit.save(model, folder / "train.safetensors"),
        "fused": fastvit.save(fastvit.fuse(model), folder / "fused.safetensors"),
        "onnx": folder / "model.onnx",
    }


@pytest.mark.parametrize("kind", ["train", "fused", "onnx"])
def test_every_source_gives_the_same_answer(
    model: fastvit.FastViT, files: dict[str, Path], kind: str, photo: Path
) -> None:
    (expected,) = fastvit.Predictor(model)(photo)
    predictor = fastvit.Predictor(files[kind])
    assert predictor.runtime == ("onnxruntime" if kind == "onnx" else "torch")
    assert predictor.classes == ("cat", "dog", "cow")
    (answer,) = predictor(photo)
    assert [label.name for label in answer.labels] == [label.name for label in expected.labels]
    assert [x.probability for x in answer.labels] == pytest.approx([x.probability for x in expected.labels], abs=1e-5)


def test_every_kind_of_input(model: fastvit.FastViT, photo: Path) -> None:
    predictor = fastvit.Predictor(model)
    image = Image.open(photo)
    array = np.asarray(image.convert("RGB"))
    answers = predictor([photo, str(photo), image, array, array[..., 0], Image.open(photo).convert("RGBA")])
    assert len({answer.labels[0].probability for answer in answers}) == 1
    alone, among = predictor(array)[0].labels, answers[0].labels
    assert [label.name for label in alone] == [label.name for label in among]
    assert [label.probability for label in alone] == pytest.approx([label.probability for label in among], abs=1e-6)
    with pytest.raises(fastvit.UserError, match="uint8.*float32"):
        predictor(array.astype(np.float32))


def test_batches_keep_the_order_and_failures_their_place(model: fastvit.FastViT, photo: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.png"
    broken.write_bytes(photo.read_bytes()[:50])
    images = [photo, broken, photo, tmp_path / "none.png", photo]
    answers = list(fastvit.Predictor(model).stream(images, batch_size=2))
    assert [type(answer) for answer in answers] == [Prediction, Failure, Prediction, Failure, Prediction]
    assert [answer.image for answer in answers] == [str(image) for image in images]
    assert "broken.png" in answers[1].reason
    with pytest.raises(fastvit.UserError, match=r"broken\.png"):
        fastvit.Predictor(model)(images)


def test_half_precision_and_one_channel(photo: Path) -> None:
    half = randomise(tiny()).half()
    assert len(fastvit.Predictor(half)(photo)[0].labels) == 5
    grey = randomise(fastvit.create_model("t8", num_classes=2, in_chans=1))
    assert grey.preprocessing.mean == (pytest.approx(0.449),)
    assert len(fastvit.Predictor(grey)(photo)[0].labels) == 2
    with pytest.raises(fastvit.UserError, match="this model takes 4"):
        fastvit.Predictor(fastvit.create_model("t8", in_chans=4))


@pytest.mark.parametrize("wrong", [{"k": 0}, {"batch_size": 0}])
def test_counts_must_count(model: fastvit.FastViT, photo: Path, wrong: dict[str, int]) -> None:
    with pytest.raises(fastvit.UserError, match="at least 1"):
        fastvit.Predictor(model)(photo, **wrong)


def test_the_model_stays_as_it_was(model: fastvit.FastViT, photo: Path) -> None:
    model.train()
    fastvit.Predictor(model)(photo)
    assert model.training
    assert fastvit.form(model) == "train"
    model.eval()


def test_a_foreign_onnx_is_named(tmp_path: Path) -> None:
    import onnx
    from onnx import helper

    value = helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1])
    graph = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["y"])],
        "g",
        [value],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1])],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), tmp_path / "x.onnx")
    with pytest.raises(fastvit.UserError, match="not exported by fastvit"):
        fastvit.Predictor(tmp_path / "x.onnx")
