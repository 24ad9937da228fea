"""`fastvit eval`: forms, sizes, files and mistakes."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from PIL import Image

import fastvit
from fastvit.cli.main import main
from fastvit.data.imagenet import imagenet_classes
from fastvit.data.load import open_images
from fastvit.data.transforms import eval_pixels
from fastvit.evaluation.checkpoint import evaluate_checkpoint
from fastvit.evaluation.measurement import EvaluationRequest
from fastvit.runtime.artifact import Signature, to_metadata
from fastvit.weights.description import METADATA_KEY, Description
from tests.helpers import randomize, tiny

CLASSES = ("Ankle_boot", "Trouser")

ALONE = EvaluationRequest(num_workers=0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Real images, ten of each of two classes."""
    root = tmp_path_factory.mktemp("photos")
    pictures = open_images("sample", "test")
    for kind in (1, 9):
        target = root / "val" / pictures.classes[kind].replace(" ", "_")
        target.mkdir(parents=True)
        for i in [i for i, label in enumerate(pictures.labels) if label == kind][:10]:
            pictures.image(i).save(target / f"{i}.png")
    return root


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run's folder, whose best weights output by chance."""
    torch.manual_seed(0)
    model = randomize(tiny(num_classes=2, classes=CLASSES, preprocessing=fastvit.Preprocessing((32, 32))))
    with torch.no_grad():
        model.head.weight.mul_(50)
    out = tmp_path_factory.mktemp("run")
    fastvit.save(model, out / "best.safetensors")
    fastvit.save(tiny(num_classes=2, classes=CLASSES), out / "last.safetensors")
    return out


def test_size_and_crop() -> None:
    own = fastvit.Preprocessing((256, 256), crop_pct=0.9)
    assert own.with_size() == own
    assert own.with_size(224).crop_pct == 0.9
    assert own.with_size(256) == own
    assert (own.with_size(384).size, own.with_size(384).crop_pct) == ((384, 384), 1.0)
    assert own.with_size(384, 0.95).crop_pct == 0.95
    assert own.with_size(crop_pct=0.8).size == (256, 256)
    # A gradient from left to right: the crop's first column tells where it was cut.
    picture = Image.fromarray(np.tile(np.linspace(0, 255, 500).astype(np.uint8), (400, 1))).convert("RGB")
    for size, side in ((224, int(224 / 0.9)), (384, 384)):
        pixels = eval_pixels(own.with_size(size))(picture)
        assert pixels.shape == (3, size, size)
        cut = (side * 500 / 400 - size) / 2  # of the resized image, whose shorter side is `side`
        assert int(pixels[0, 0, 0]) == pytest.approx(255 * cut / (side * 500 / 400), abs=2)
    for arguments, message in (((16,), "at least 32"), ((64, 1.5), "crop_pct must be")):
        with pytest.raises(fastvit.UserError, match=message):
            own.with_size(*arguments)


def test_forms_agree_and_a_folder_means_its_best_weights(run: Path, folder: Path) -> None:
    fused, train = (
        evaluate_checkpoint(str(run), str(folder), form, ALONE, device="cpu") for form in ("fused", "train")
    )
    assert (fused.form, train.form) == ("fused", "train")
    assert fused.found.details["confusion"] == train.found.details["confusion"]
    assert fused.found.metrics == pytest.approx(train.found.metrics, rel=1e-4)
    path = fastvit.save(fastvit.fuse(fastvit.load(run)), run / "fused" / "model.safetensors")
    with pytest.raises(fastvit.UserError, match="is in fused form"):
        evaluate_checkpoint(str(path), str(folder), "train", ALONE, device="cpu")


def write_artifact(path: Path, model: fastvit.FastViT, size: tuple[int | str, int | str]) -> Path:
    """An artifact that says it is the model, and computes something simpler: the mean color times a matrix."""
    weight = np.random.default_rng(0).standard_normal((3, 2)).astype(np.float32)
    graph = onnx.helper.make_graph(
        [
            onnx.helper.make_node("GlobalAveragePool", ["images"], ["mean"]),
            onnx.helper.make_node("Flatten", ["mean"], ["color"]),
            onnx.helper.make_node("MatMul", ["color", "weight"], ["logits"]),
        ],
        "simple",
        [onnx.helper.make_tensor_value_info("images", onnx.TensorProto.FLOAT, ["batch", 3, *size])],
        [onnx.helper.make_tensor_value_info("logits", onnx.TensorProto.FLOAT, ["batch", 2])],
        [onnx.numpy_helper.from_array(weight, "weight")],
    )
    opset = onnx.helper.make_opsetid("", 18)
    program = onnx.helper.make_model(graph, opset_imports=[opset], ir_version=9)
    fixed = None if "height" in size else size
    signature = Signature("fp32", "normalized", None, fixed, ("logits",), "0" * 64)
    metadata = to_metadata(Description.of(fastvit.fuse(model)), signature)
    onnx.helper.set_model_props(program, {METADATA_KEY: metadata})
    onnx.save(program, path)
    return path


def test_an_artifact_of_one_size_says_so(run: Path, folder: Path, tmp_path: Path) -> None:
    path = write_artifact(tmp_path / "any.onnx", fastvit.load(run), ("height", "width"))
    larger = replace(ALONE, size=(48, 48))
    assert evaluate_checkpoint(str(path), str(folder), request=larger).preprocessing.size == (48, 48)
    path = write_artifact(tmp_path / "fixed.onnx", fastvit.load(run), (32, 32))
    assert evaluate_checkpoint(str(path), str(folder), request=ALONE).found.images == 20
    with pytest.raises(fastvit.UserError, match="takes images of 32x32 pixels.* 48x48"):
        evaluate_checkpoint(str(path), str(folder), request=larger)
    with pytest.raises(fastvit.UserError, match="is in fused form"):
        evaluate_checkpoint(str(path), str(folder), "train", ALONE)


def test_files_and_terminal(run: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["eval", str(run), "--data", str(folder), "--num-workers", "0", "--device", "cpu", "--batch-size", "8"]
    assert main([*command, "--out", str(tmp_path), "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    written = json.loads((tmp_path / "evaluation.json").read_text())
    assert {name: written[name] for name in printed} == printed
    assert (printed["images"], printed["skipped"], printed["size"]) == (20, 0, [32, 32])
    assert sum(count for *_, count in written["confusion"]) == 20
    right = sum(count for true, named, count in written["confusion"] if true == named)
    assert printed["top1"] == pytest.approx(right / 20)
    assert {name: row["images"] for name, row in written["per_class"].items()} == dict.fromkeys(CLASSES, 10)
    gaps = [b["images"] * abs(b["accuracy"] - b["confidence"]) for b in written["reliability"]]
    assert printed["ece"] == pytest.approx(sum(gaps) / 20)
    assert written["environment"]["torch"] == torch.__version__.partition("+")[0]
    html = (tmp_path / "evaluation.html").read_text()
    for heading in (
        "Metrics",
        "Calibration error (ECE)",
        "Confusion matrix",
        "Most confident mistakes",
        "Results per class",
        "Setup",
    ):
        assert f"<h2>{heading}</h2>" in html
    assert all(source.startswith("data:image/") for source in re.findall(r'(?:src|href)="([^"]{0,20})', html))
    assert main([*command, "--per-class"]) == 0
    text = capsys.readouterr().out
    for part in ("ECE", "images/s", "Trouser"):
        assert part in text


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--size", "8"], "size must be at least 32"),
        (["--crop-pct", "0"], "crop_pct must be above 0"),
        (["--num-workers", "-1"], "num_workers must be at least 0"),
        (["--form", "reparameterized"], "form"),
        (["--real-labels"], "ImageNet's validation set"),
    ],
)
def test_mistakes(
    run: Path, folder: Path, capsys: pytest.CaptureFixture[str], options: list[str], message: str
) -> None:
    assert main(["eval", str(run), "--data", str(folder), "--device", "cpu", *options]) == 2
    errors = capsys.readouterr().err
    assert message in errors
    assert errors.count("\n") == 1


def test_real_labels_of_a_part_of_imagenet(tmp_path: Path) -> None:
    folder = tmp_path / "val" / "n01440764"
    folder.mkdir(parents=True)
    for number in (1, 2, 3):
        Image.new("RGB", (40, 40)).save(folder / f"ILSVRC2012_val_{number:08d}.png")
    preprocessing = fastvit.Preprocessing((32, 32))
    model = tiny(num_classes=1000, classes=imagenet_classes(), preprocessing=preprocessing)
    with torch.no_grad():
        # ReaL has no label for the first image, 970 and 795 for the second, 230 and 231 for the third.
        model.head.bias[970] = 1e3
    path = fastvit.save(model, tmp_path / "model.safetensors")
    measured = evaluate_checkpoint(str(path), str(tmp_path), request=replace(ALONE, real_labels=True), device="cpu")
    assert measured.found.metrics["top1"] == 0
    assert measured.found.metrics["real_top1"] == 0.5
