"""Suites from folders to numbers, and the command."""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib import resources
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

import fastvit
from fastvit.cli.main import main
from fastvit.data.arrays import FASHION_MNIST_CLASSES
from fastvit.data.imagenet import imagenet_classes, imagenet_synsets
from fastvit.data.load import open_images
from fastvit.data.subset import limited
from fastvit.errors import UserError
from fastvit.evaluation.robustness.corruptions import CORRUPTIONS
from fastvit.evaluation.robustness.measure import Settings, measure
from fastvit.evaluation.robustness.robustness_report import write_robustness
from fastvit.evaluation.robustness.scores import ALEXNET
from fastvit.evaluation.robustness.suites import SUITES, find_suite
from fastvit.evaluation.robustness.views import Corrupted, Cropped, Joined
from fastvit.model.preprocessing import Preprocessing
from fastvit.predict.predictor import Predictor
from fastvit.runs.evaluation_data import EvaluationData
from fastvit.tasks.table import find_task
from fastvit.weights.description import Description
from tests.helpers import randomize, tiny

SMALL = Preprocessing((32, 32))


class FixedPredictor(Predictor):
    """A classifier whose logits are known, by the pixel (red, green) in the middle of each image."""

    def __init__(self, logits: Callable[[torch.Tensor], torch.Tensor]) -> None:
        like = tiny(1000, classes=imagenet_classes(), preprocessing=SMALL)
        self.network, self.spec = Description.of(like), find_task("classification")
        self._known = logits

    def logits(self, images: torch.Tensor) -> torch.Tensor:
        return self._known(256 * images[:, 0, 16, 16].long() + images[:, 1, 16, 16].long())


def predicts(favorite: int | None = None) -> FixedPredictor:
    """Names the class that the pixel says, unless it may name a favorite."""

    def logits(pixels: torch.Tensor) -> torch.Tensor:
        outputs = F.one_hot(pixels, 1000).float()
        if favorite is not None:
            outputs[:, favorite] = 2
        return outputs

    return FixedPredictor(logits)


def save(root: Path, folder: str, output: int, name: str = "0.png") -> None:
    (root / folder).mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (40, 40), (output // 256, output % 256, 0)).save(root / folder / name)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    model = randomize(tiny(classes=FASHION_MNIST_CLASSES, preprocessing=SMALL))
    return fastvit.save(model, tmp_path_factory.mktemp("robustness") / "model.safetensors")


@pytest.mark.parametrize("name", ["imagenet-a", "imagenet-r"])
def test_the_subsets_are_timms(name: str) -> None:
    from timm.data import ImageNetInfo

    columns = SUITES[name].columns()
    info = ImageNetInfo("imagenet-1k")
    lines = (resources.files("timm.data") / "_info" / f"{name.replace('-', '_')}_synsets.txt").read_text()
    assert len(columns) == 200
    assert [info.index_to_label_name(column) for column in columns] == lines.split()


def test_only_the_subsets_classes_count(tmp_path: Path) -> None:
    """Images of classes 6, 11 and 13, the first of ImageNet-A's, one of them taken for another of the subset."""
    assert SUITES["imagenet-a"].columns()[:3] == (6, 11, 13)
    for true, output in ((6, 6), (11, 11), (13, 11)):
        save(tmp_path, imagenet_synsets()[true], output)
    outside, inside = (
        measure(predicts(favorite), SUITES["imagenet-a"], EvaluationData(None, str(tmp_path)), Settings(num_workers=0))
        for favorite in (7, 11)
    )
    assert outside.metrics["top1"] == pytest.approx(2 / 3), "class 7 is not in the subset and may not win"
    assert inside.metrics["top1"] == pytest.approx(1 / 3), "class 11 is, and does"


def test_classes_of_another_suite(tmp_path: Path) -> None:
    for folder in ("n01498041", "n01440764"):
        save(tmp_path, folder, 0)
    with pytest.raises(UserError, match="is not ImageNet-R: n01440764 is not one of its 200 classes"):
        SUITES["imagenet-r"].open(str(tmp_path))


def test_folders_by_number_and_by_synset(tmp_path: Path) -> None:
    for index in (0, 2, 10, 999):
        save(tmp_path / "numbers", str(index), index)
        save(tmp_path / "synsets", imagenet_synsets()[index], index)
    for layout in ("numbers", "synsets"):
        result = measure(
            predicts(), SUITES["imagenet-v2"], EvaluationData(None, str(tmp_path / layout)), Settings(num_workers=0)
        )
        images = SUITES["imagenet-v2"].open(str(tmp_path / layout))
        assert sorted(images.labels) == [0, 2, 10, 999]
        assert (result.images, result.complete) == (4, True)
        assert result.metrics["top1"] == 1
    assert SUITES["imagenet-sketch"].columns() == tuple(range(1000))


def test_the_published_layout(tmp_path: Path) -> None:
    """Folders with a known share of wrong predictions, one more with each severity, and mCE from them by hand."""
    for name in CORRUPTIONS:
        for severity in range(1, 6):
            for i in range(5):
                save(tmp_path / name / str(severity), imagenet_synsets()[i], 50 if i < severity - 1 else i)
    save(tmp_path / "clean", imagenet_synsets()[3], 3)
    result = measure(
        predicts(),
        SUITES["imagenet-c"],
        EvaluationData(None, str(tmp_path)),
        Settings(num_workers=0, clean=EvaluationData(None, str(tmp_path / "clean"))),
    )
    assert result.errors == {name: pytest.approx([0, 0.2, 0.4, 0.6, 0.8]) for name in CORRUPTIONS}
    assert not result.computed_here
    assert (result.images, result.metrics["clean_error"], result.metrics["relative_error"]) == (
        5,
        0,
        pytest.approx(0.4),
    )
    assert result.metrics["mce"] == pytest.approx(np.mean([0.4 / error for error in ALEXNET.values()]))
    (tmp_path / "fog" / "3").rename(tmp_path / "fog" / "three")
    with pytest.raises(UserError, match=r"lacks folders \(1: fog/3\)"):
        measure(predicts(), SUITES["imagenet-c"], EvaluationData(None, str(tmp_path)), Settings(num_workers=0))
    part = measure(
        predicts(), SUITES["imagenet-c"], EvaluationData(None, str(tmp_path)), Settings(("snow",), num_workers=0)
    )
    assert set(part.metrics) == {"mean_error"}, "neither mCE of a part nor a clean error that was not measured"


def test_views() -> None:
    images = open_images("sample", "test")
    assert [limited(images, 4).labels[i] for i in range(4)] == [images.labels[i] for i in (0, 250, 500, 750)]
    assert limited(images, 5000) is images
    cropped = Cropped(images, SMALL)
    assert cropped.image(0).size == (32, 32)
    noisy = Corrupted(cropped, CORRUPTIONS["gaussian_noise"], 3, seed=0)
    chosen = limited(noisy, 2)
    assert np.array_equal(np.asarray(chosen.image(1)), np.asarray(noisy.image(500))), "an image's chance is its own"
    joined = Joined([chosen, cropped])
    assert len(joined) == 1002
    assert list(joined.labels) == [*chosen.labels, *images.labels]
    assert np.array_equal(np.asarray(joined.image(1)), np.asarray(noisy.image(500)))
    assert joined.name(2) == images.name(0)


def test_command(checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["robustness", str(checkpoint), "--limit", "5", "--num-workers", "0", "--device", "cpu"]
    assert main(arguments) == 0
    folder = checkpoint.with_name("model-imagenet-c")
    output = capsys.readouterr().out
    found = json.loads((folder / "robustness.json").read_text())
    assert list(found["errors"]) == list(CORRUPTIONS)
    assert all(len(row) == 5 for row in found["errors"].values())
    assert found["images"] == 5
    assert not found["complete"]
    mean = np.mean(list(found["errors"].values()))
    assert found["metrics"]["relative_error"] == pytest.approx(mean - found["metrics"]["clean_error"])
    assert f"{mean:.2%}" in output
    report = (folder / "robustness.html").read_text()
    for part in ("only 5 images", "Frost is a computed texture", "<h2>Heat map</h2>", "<h2>Severity curves</h2>"):
        assert part in report
    assert main([*arguments, "--corruptions", "fog", "--json", "--out", str(folder / "fog")]) == 0
    again = json.loads(capsys.readouterr().out)
    assert again["errors"] == {"fog": found["errors"]["fog"]}, "the same images and the same chance"


def test_report_of_a_subset(tmp_path: Path) -> None:
    save(tmp_path / "images", "n01498041", 6)
    save(tmp_path / "images", "n02077923", 150)
    result = measure(
        predicts(), SUITES["imagenet-a"], EvaluationData(None, str(tmp_path / "images")), Settings(num_workers=0)
    )
    report = write_robustness(result, "runs/best.safetensors", tmp_path / "out").read_text()
    for part in ("Robustness of best.safetensors: ImageNet-A", "200 classes", "37.5%", "arXiv 1907.07174"):
        assert part in report


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--suite", "imagenet-x"], "unknown suite 'imagenet-x': did you mean imagenet-"),
        (["--suite", "imagenet-a", "--data", "nowhere"], "needs a model with ImageNet's 1000 classes"),
        (["--data", "nowhere"], f"the folder {Path.cwd()}/nowhere does not exist"),
        (["--corruptions", "rain"], "unknown corruption 'rain'"),
        (["--limit", "0"], "limit must be at least 1"),
    ],
)
def test_mistakes(checkpoint: Path, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["robustness", str(checkpoint), "--num-workers", "0", *arguments]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert message in line


def test_a_suite_needs_its_folder() -> None:
    with pytest.raises(
        UserError, match="the folder nowhere does not exist; ImageNet-Sketch is a folder with one subfolder per class"
    ):
        find_suite("imagenet-sketch").open("nowhere")
