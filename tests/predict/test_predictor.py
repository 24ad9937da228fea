"""One call for a model, a checkpoint and an artifact."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from pyarrow import parquet

import fastvit
from fastvit.export.options import ExportOptions
from fastvit.export.program import build_program
from fastvit.export.target import TARGETS
from fastvit.numerics import compare
from fastvit.predict.predictor import Failure
from fastvit.predict.records import record, recording
from fastvit.tasks.classification.prediction import ClassPrediction
from tests.helpers import randomize, tiny


@pytest.fixture(scope="module")
def model() -> fastvit.FastViT:
    torch.manual_seed(0)
    return randomize(tiny(num_classes=3, classes=["cat", "dog", "cow"], preprocessing=fastvit.Preprocessing((48, 48))))


@pytest.fixture(scope="module")
def files(model: fastvit.FastViT, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("predictor")
    options = ExportOptions(batch=2, input="pixels", output="probabilities")
    TARGETS["onnx"].write(build_program(model, options), folder / "model.onnx")
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
    predictor = fastvit.Predictor(files[kind], runtime="auto" if kind == "onnx" else "torch")
    assert predictor.runtime in ({"onnxruntime", "openvino"} if kind == "onnx" else {"torch"})
    assert predictor.classes == ("cat", "dog", "cow")
    (prediction,) = predictor(photo)
    assert [label.name for label in prediction.labels] == [label.name for label in expected.labels]
    assert [x.probability for x in prediction.labels] == pytest.approx(
        [x.probability for x in expected.labels], abs=1e-5
    )


@pytest.mark.parametrize("taken", ["normalized", "unit", "pixels"])
def test_an_artifact_gets_what_it_takes(taken: str, tmp_path: Path) -> None:
    """Whether the caller brings pixels or normalized images: the logits are those of the network in float."""
    own = fastvit.Preprocessing((48, 48), mean=(0.1, 0.4, 0.6), std=(0.2, 0.5, 1.5))
    network = randomize(tiny(num_classes=3, preprocessing=own))
    TARGETS["onnx"].write(build_program(network, ExportOptions(input=taken)), tmp_path / "model.onnx")
    predictor = fastvit.Predictor(tmp_path / "model.onnx", runtime="onnxruntime")
    pixels = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (2, 3, 48, 48), np.uint8))
    mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (own.mean, own.std))
    images = (pixels / 255 - mean) / std
    with torch.inference_mode():
        expected = network(images)
    assert compare(expected, predictor.logits(pixels)).relative < 1e-5
    if taken == "pixels":
        with pytest.raises(fastvit.UserError, match="takes pixels, not normalized images"):
            predictor.logits(images)
    else:
        assert compare(expected, predictor.logits(images)).relative < 1e-5


def test_every_kind_of_input(model: fastvit.FastViT, photo: Path) -> None:
    predictor = fastvit.Predictor(model)
    image = Image.open(photo)
    array = np.asarray(image.convert("RGB"))
    predictions = predictor([photo, str(photo), image, array, array[..., 0], Image.open(photo).convert("RGBA")])
    # Not always to the last bit: where an image lies in its batch may change the order of sums.
    first = [prediction.labels[0].probability for prediction in predictions]
    assert first == pytest.approx([first[0]] * 6, abs=1e-6)
    alone, among = predictor(array)[0].labels, predictions[0].labels
    assert [label.name for label in alone] == [label.name for label in among]
    assert [label.probability for label in alone] == pytest.approx([label.probability for label in among], abs=1e-6)
    with pytest.raises(fastvit.UserError, match="uint8.*float32"):
        predictor(array.astype(np.float32))


def test_folders_batches_and_generators(model: fastvit.FastViT, files: dict[str, Path], photo: Path) -> None:
    array = np.asarray(Image.open(photo).convert("RGB"))
    for predictor in (fastvit.Predictor(model), fastvit.Predictor(files["onnx"])):
        (alone,) = predictor(photo.parent)
        assert alone.image == str(photo)
        mixed = (item for item in (photo, np.stack([array] * 3), torch.from_numpy(array), photo.parent))
        predictions = predictor(mixed, batch_size=4)
        assert [prediction.image for prediction in predictions] == [
            str(photo), "image 1", "image 2", "image 3", "image 4", str(photo)
        ]  # fmt: skip
        for prediction in predictions:
            assert prediction.labels[0].probability == pytest.approx(alone.labels[0].probability, abs=1e-5)


def test_a_generator_is_read_as_it_is_needed(model: fastvit.FastViT) -> None:
    """Two batches ahead at most, so that memory does not grow with the number of images."""
    taken = 0

    def images() -> Iterator[np.ndarray]:
        nonlocal taken
        while True:
            taken += 1
            yield np.zeros((8, 8, 3), np.uint8)

    predictions = fastvit.Predictor(model).stream(images(), batch_size=4)
    for count in range(1, 21):
        next(predictions)
        assert taken <= 4 * ((count - 1) // 4 + 2)
    predictions.close()


def test_an_artifact_needs_no_torch(files: dict[str, Path], photo: Path) -> None:
    code = f"""
import sys, fastvit
predictor = fastvit.Predictor({str(files["onnx"])!r}, runtime="onnxruntime")
print(predictor({str(photo)!r})[0].labels[0].name, predictor.runtime)
print([name for name in ("torch", "timm", "torchvision", "onnx", "matplotlib") if name in sys.modules])
status = open("/proc/self/status").read() if sys.platform == "linux" else "VmHWM: 0 kB"
print(int(status.partition("VmHWM:")[2].split()[0]) // 1000)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    prediction, modules, megabytes = done.stdout.splitlines()
    assert prediction.split()[-1] == "onnxruntime"
    assert modules == "[]"
    assert int(megabytes) < 300


def test_runtimes_by_name(files: dict[str, Path], photo: Path) -> None:
    pytest.importorskip("openvino", reason='openvino is not installed: pip install "fastvit[openvino]"')
    first, second = (fastvit.Predictor(files["onnx"], runtime=name) for name in ("onnxruntime", "openvino"))
    assert (first.runtime, second.runtime) == ("onnxruntime", "openvino")
    (ours,), (theirs,) = first(photo), second(photo)
    assert [x.name for x in ours.labels] == [x.name for x in theirs.labels]
    assert [x.probability for x in ours.labels] == pytest.approx([x.probability for x in theirs.labels], abs=1e-5)
    with pytest.raises(fastvit.UserError, match="litert does not read"):
        fastvit.Predictor(files["onnx"], runtime="litert")


def test_batches_keep_the_order_and_failures_their_place(model: fastvit.FastViT, photo: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.png"
    broken.write_bytes(photo.read_bytes()[:50])
    images = [photo, broken, photo, tmp_path / "none.png", photo]
    predictions = list(fastvit.Predictor(model).stream(images, batch_size=2))
    assert [type(prediction) for prediction in predictions] == [
        ClassPrediction,
        Failure,
        ClassPrediction,
        Failure,
        ClassPrediction,
    ]
    assert [prediction.image for prediction in predictions] == [str(image) for image in images]
    assert "broken.png" in predictions[1].reason
    with pytest.raises(fastvit.UserError, match=r"broken\.png"):
        fastvit.Predictor(model)(images)


def test_half_precision_and_one_channel(photo: Path) -> None:
    half = randomize(tiny()).half()
    assert len(fastvit.Predictor(half)(photo)[0].labels) == 5
    gray = randomize(fastvit.create_model("t8", num_classes=2, in_chans=1))
    assert gray.preprocessing.mean == (pytest.approx(0.449),)
    assert len(fastvit.Predictor(gray)(photo)[0].labels) == 2
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
    with pytest.raises(fastvit.UserError, match="not written by fastvit export"):
        fastvit.Predictor(tmp_path / "x.onnx")


def test_records(model: fastvit.FastViT, photo: Path, tmp_path: Path) -> None:
    """Both kinds of file say the same, of what could be read and of what could not; one that fails leaves none."""
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no image")
    predictions = list(fastvit.Predictor(model).stream([photo, broken, photo], k=2))
    for name in ("a.jsonl", "a.parquet"):
        with recording(tmp_path / name) as write:
            for prediction in predictions:
                write(prediction)
    lines = [json.loads(line) for line in (tmp_path / "a.jsonl").read_text().splitlines()]
    assert lines == [record(prediction) for prediction in predictions]
    assert "broken.png" in lines[1]["error"]
    rows = parquet.read_table(tmp_path / "a.parquet").to_pylist()
    assert [row["image"] for row in rows] == [str(photo), str(broken), str(photo)]
    assert rows[0]["name"] == [label["name"] for label in lines[0]["predictions"]]
    assert rows[0]["probability"] == pytest.approx([label["probability"] for label in lines[0]["predictions"]])
    assert (rows[1]["error"], rows[1]["name"]) == (lines[1]["error"], None)
    for name in ("b.jsonl", "b.parquet"):
        with pytest.raises(RuntimeError), recording(tmp_path / name):
            raise RuntimeError
        assert not list(tmp_path.glob("*b.*"))
    with pytest.raises(fastvit.UserError, match=r"is not a \.jsonl or \.parquet"), recording(tmp_path / "a.csv"):
        pass


def test_another_size_is_another_predictor() -> None:
    model = tiny(classes=tuple("abcdefghij"), preprocessing=fastvit.Preprocessing((32, 32)))
    predictor = fastvit.Predictor(model)
    larger = predictor.with_preprocessing(predictor.preprocessing.with_size(64))
    assert (predictor.preprocessing.size, larger.preprocessing.size) == ((32, 32), (64, 64))
    image = np.random.default_rng(0).integers(0, 256, (80, 80, 3), np.uint8)
    alone = tiny(classes=model.classes, preprocessing=fastvit.Preprocessing((64, 64), crop_pct=1.0))
    alone.load_state_dict(model.state_dict())
    assert larger(image)[0].labels == fastvit.Predictor(alone)(image)[0].labels
    with pytest.raises(fastvit.UserError, match="mean and std cannot be changed"):
        predictor.with_preprocessing(fastvit.Preprocessing((32, 32), (0.0, 0.0, 0.0)))
