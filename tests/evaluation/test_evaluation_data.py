"""No image that a run trained on is evaluated, proved on or measured as a validation image."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

import fastvit
from fastvit.cli.main import main
from fastvit.data.datasets import LabeledImages
from fastvit.data.load import open_for_training, open_images
from fastvit.data.splitting import Part, write_split
from fastvit.device import pick_device
from fastvit.errors import UserError
from fastvit.evaluation.checkpoint import evaluate_checkpoint
from fastvit.evaluation.measurement import EvaluationRequest
from fastvit.evaluation.robustness.measure import Settings, measure
from fastvit.evaluation.robustness.suites import SUITES
from fastvit.export.pictures import to_compare_on
from fastvit.export.quantize.calibration import calibration_pictures
from fastvit.predict.predictor import Predictor
from fastvit.runs.evaluation_data import EvaluationData, run_of
from fastvit.tasks.table import find_task
from fastvit.training.recipe import dump_recipe
from fastvit.training.train import Run, train
from tests.helpers import make_folder
from tests.training.runs import make_data, recipe

FRACTION = 0.25


def photos(root: Path, count: int = 48) -> Path:
    """Real images in a folder a class, without a validation part; no two are the same."""
    sample = open_images("sample", "test")
    for index in range(count):
        folder = root / "abc"[index % 3]
        folder.mkdir(parents=True, exist_ok=True)
        sample.image(index).save(folder / f"{index}.png")
    return root


def names(pictures: LabeledImages) -> list[str]:
    return [pictures.name(index) for index in range(len(pictures))]


def contents(pictures: LabeledImages) -> set[bytes]:
    return {pictures.image(index).tobytes() for index in range(len(pictures))}


def rows(run: Path, split: str) -> list[str]:
    with (run / "split.csv").open(newline="") as file:
        return [row["image"] for row in csv.DictReader(file) if row["split"] == split]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run of one epoch on 36 images of 48, that lies beside its data."""
    root = tmp_path_factory.mktemp("run")
    more = ("--epochs=1", "--optim.warmup_epochs=0", f"--val_fraction={FRACTION}", "--num-workers=0")
    return train(recipe(photos(root / "photos"), root / "runs" / "photos", *more))


def test_eval_gives_the_number_of_the_training(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    data = run.out.parent.parent / "photos"
    expected = (len(rows(run.out, "val")), pytest.approx(run.score))
    shutil.copy(run.best, run.out / "of my own.safetensors")
    for checkpoint in (run.out, run.best, run.out / "of my own.safetensors"):
        for option in ([], ["--data", str(data)], ["--data", f"{data}/../photos"]):
            assert main(["eval", str(checkpoint), *option, "--num-workers=0", "--device=cpu", "--json"]) == 0
            result = json.loads(capsys.readouterr().out)
            assert (result["images"], result["top1"]) == expected
            assert (result["run_split"], result["data"]) == (True, option[1] if option else str(data))
    assert main(["eval", str(run.out), "--num-workers=0", "--device=cpu"]) == 0
    assert f"12 validation images of {data} (validation split of the run)" in " ".join(capsys.readouterr().out.split())


def test_nothing_counts_an_image_that_was_trained_on(run: Run) -> None:
    """The two parts are told by their pixels, whatever way they are opened."""
    photos = run.out.parent.parent / "photos"
    training, validation = (
        {fastvit.data.images.read_image(photos / name).tobytes() for name in rows(run.out, part)}
        for part in ("train", "val")
    )
    assert (len(training), len(validation)) == (36, 12)
    model, predictor = fastvit.load(run.best), Predictor(run.best, pick_device("cpu"), "torch")
    measured = evaluate_checkpoint(str(run.best), request=EvaluationRequest(num_workers=0), device="cpu")
    assert contents(measured.images) == validation
    for given in (None, str(photos)):
        data = EvaluationData(run.best, given)
        proved = to_compare_on(model, data, None, 64)
        assert {picture.tobytes() for picture in proved.images} == validation
        assert proved.labels is not None
        for calibrated in (find_task(model.task).calibration_images(model, data, 64), calibration_pictures(data, 64)):
            assert {picture.tobytes() for picture in calibrated} == training
        result = measure(predictor, SUITES["imagenet-c"], data, Settings(("brightness",), num_workers=0))
        assert (result.images, result.complete) == (12, True)
        assert result.metrics["clean_error"] == pytest.approx(1 - run.score)


@pytest.mark.slow
def test_the_commands(run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", str(run.out), "--precision", "int8", "--calibrate", "8", "--out", str(tmp_path)]) == 0
    assert json.loads((tmp_path / "report.json").read_text())["compared_on"].startswith("12 images of ")
    assert main(["robustness", str(run.out), "--corruptions", "fog", "--out", str(tmp_path), "--num-workers", "0"]) == 0
    assert json.loads((tmp_path / "robustness.json").read_text())["images"] == 12
    assert "12 images of " in capsys.readouterr().out


def test_what_training_prints_next_works(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import shlex

    data = photos(tmp_path / "photos", 24)
    more = ["--epochs=1", "--optim.warmup_epochs=0", "--val_fraction=0.5", "--num-workers=0", "--model.size=32"]
    command = ["--recipe=quickstart", f"--data={data}", f"--out={tmp_path / 'a run'}", "--batch_size=4"]
    assert main(["train", *command, *more, "--device=cpu"]) == 0
    line = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("next: fastvit "))
    printed = shlex.split(line.partition("fastvit ")[2].partition(";")[0])
    assert main([*printed, "--json", "--num-workers=0", "--device=cpu"]) == 0
    assert json.loads(capsys.readouterr().out)["images"] == 12


# Sources


def folder(root: Path) -> str:
    return str(photos(root / "photos"))


def train_folder(root: Path) -> str:
    photos(root / "photos" / "train")
    return str(root / "photos")


def idx(root: Path) -> str:
    return str(make_data(root / "data"))


def table(root: Path) -> str:
    datasets = pytest.importorskip("datasets")
    pictures = make_folder(root / "pictures", ("ape", "cat"), ("train",)) / "train"
    files = [(str(pictures / name / f"{i}.png"), name) for name in ("ape", "cat") for i in range(2)] * 4
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["ape", "cat"])})
    columns = {"image": [file for file, _ in files], "label": [name for _, name in files]}
    (root / "parquet" / "data").mkdir(parents=True)
    made = datasets.Dataset.from_dict(columns, features=features)
    made.to_parquet(root / "parquet" / "data" / "train-00000-of-00001.parquet")
    return f"hfds/{root / 'parquet'}"


SOURCES: tuple[Callable[[Path], str], ...] = (folder, train_folder, idx, table)


def make_run(out: Path, source: str) -> tuple[Path, Part, Part]:
    """A run's folder as training begins it, with the two parts of its data."""
    parts = open_for_training(source, FRACTION, 0)
    assert isinstance(parts[0], Part)
    assert isinstance(parts[1], Part)
    write_split(out / "split.csv", parts[1])
    (out / "recipe.yaml").write_text(dump_recipe(recipe(Path("x"), out, f"--data={source}", "--val_fraction=0.25")))
    (out / "environment.json").write_text("{}")
    (out / "best.safetensors").write_text("weights")
    return out, *parts


@pytest.fixture
def cached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    try:
        import datasets
    except ImportError:
        return
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_OFFLINE", True)


@pytest.mark.usefixtures("cached")
@pytest.mark.parametrize("make", SOURCES)
def test_the_runs_split_holds_for_its_data_and_copies_of_them(make: Callable[[Path], str], tmp_path: Path) -> None:
    (tmp_path / "here").mkdir()
    source = make(tmp_path / "here")
    run, training, validation = make_run(tmp_path / "run", source)
    for given in (None, source):
        data = EvaluationData(run / "best.safetensors", given)
        assert data.source == source
        assert names(data.images("test", validation.classes)) == names(validation)
        assert names(data.images("train")) == names(training)
        assert data.images("test").labels == validation.labels
    shutil.copytree(tmp_path / "here", tmp_path / "there")
    copy = source.replace("/here", "/there")
    assert names(EvaluationData(run, copy).images("test")) == [n.replace("/here", "/there") for n in names(validation)]
    shutil.rmtree(tmp_path / "here")
    assert len(EvaluationData(run, copy).images("train")) == len(training)
    with pytest.raises(UserError, match=r"the data of .*run were not found.*--data|cannot open hfds"):
        EvaluationData(run, None).images("test")


def test_the_train_folder_of_the_data_is_the_data(tmp_path: Path) -> None:
    run, _, validation = make_run(tmp_path / "run", train_folder(tmp_path))
    assert names(EvaluationData(run, f"{tmp_path}/photos/train").images("test")) == names(validation)
    (tmp_path / "photos" / "train").rename(tmp_path / "moved")
    assert len(EvaluationData(run, f"{tmp_path}/moved").images("test")) == len(validation)


def test_the_sample_of_another_installation_is_the_same(tmp_path: Path) -> None:
    run, training, validation = make_run(tmp_path / "run", "sample")
    file = run / "split.csv"
    file.write_text(file.read_text().replace(str(Path(fastvit.__file__).parent), "/opt/elsewhere/fastvit"))
    for given in (None, "sample"):
        assert names(EvaluationData(run, given).images("test")) == names(validation)
    assert len(EvaluationData(run, None).images("train")) == len(training)


def copied(pictures: LabeledImages, target: Path, prefix: str = "") -> Path:
    for name in names(pictures):
        (folder := target / Path(name).parent.name).mkdir(parents=True, exist_ok=True)
        shutil.copy(name, folder / f"{prefix}{Path(name).name}")
    return target


def test_other_data_are_used_as_they_are(tmp_path: Path) -> None:
    """They have no image by the name of one that was trained on, whether they have a validation part or are one."""
    run, training, validation = make_run(tmp_path / "run", folder(tmp_path))
    copied(validation, tmp_path / "other" / "val")
    copied(training, tmp_path / "other" / "train")
    assert len(EvaluationData(run, f"{tmp_path}/other").images("test")) == len(validation)
    assert len(EvaluationData(run, "sample").images("test")) == 1000
    renamed = copied(training, tmp_path / "named" / "Test", "other ")
    for given in (renamed, renamed.parent, copied(validation, tmp_path / "validation images")):
        assert len(EvaluationData(run, str(given)).images("test")) == len(list(given.rglob("*.png")))


def test_training_images_in_validation_folders_are_refused(tmp_path: Path) -> None:
    """Copies of the run's data that were divided anew, or only called so."""
    run, training, validation = make_run(tmp_path / "run", folder(tmp_path))
    first = copied(Part(training.pictures, training.indices[:5]), tmp_path / "first" / "val")
    copied(validation, first)
    shutil.copytree(tmp_path / "photos", tmp_path / "first" / "train")
    second = copied(training, tmp_path / "second" / "Test")
    for given, count in ((first.parent, "5 of the 17"), (second, "36 of the 36"), (second.parent, "36 of the 36")):
        with pytest.raises(
            UserError, match=rf"{count} images of {given} have the names of images that .*run trained on"
        ):
            EvaluationData(run, str(given)).images("test")
    assert len(EvaluationData(run, str(first)).images("test")) == len(validation), "a copy that lacks training images"


def test_a_copy_may_lack_training_images(tmp_path: Path) -> None:
    run, training, validation = make_run(tmp_path / "run", folder(tmp_path))
    copy = shutil.copytree(tmp_path / "photos", tmp_path / "copy")
    (copy / "a" / Path(training.name(0)).name).unlink()
    data = EvaluationData(run, str(copy))
    with pytest.warns(UserWarning, match=r"copy lacks training images that .*split\.csv lists \(1: a/"):
        assert names(data.images("test")) == [name.replace("/photos/", "/copy/") for name in names(validation)]
    with pytest.warns(UserWarning, match="lacks training images"):
        assert len(data.images("train")) == len(training) - 1


def test_what_can_be_read_in_two_ways_is_named(tmp_path: Path) -> None:
    source = train_folder(tmp_path)
    run, training, validation = make_run(tmp_path / "run", source)
    shutil.copytree(tmp_path / "photos" / "train", tmp_path / "part")
    (tmp_path / "part" / Path(validation.name(0)).relative_to(f"{source}/train")).unlink()
    with pytest.raises(UserError, match=r"36 of the 47 images of .*part have the names of images that .*\(36: a/"):
        EvaluationData(run, str(tmp_path / "part")).images("test")
    (tmp_path / "photos" / "val").mkdir()
    with pytest.raises(UserError, match=r"photos/val contains validation images, but .*split\.csv lists others"):
        EvaluationData(run, source).images("test")
    assert names(EvaluationData(run, None).images("test")) == names(validation)
    (tmp_path / "photos" / "val").rmdir()

    shutil.copy(training.name(0), Path(training.name(0)).with_name("new.png"))
    with pytest.warns(
        UserWarning, match=r"contains images that .*split\.csv does not list; .* left out \(1: a/new\.png\)"
    ):
        assert names(EvaluationData(run, None).images("test")) == names(validation)
    Path(training.name(0)).rename(Path(training.name(0)).with_name("new.png"))
    lacking = pytest.warns(UserWarning, match=r"lacks training images that .* lists \(1: a/")
    with lacking, pytest.warns(UserWarning, match="does not list"):
        assert names(EvaluationData(run, None).images("test")) == names(validation)
    Path(validation.name(0)).unlink()
    for given in (None, source):
        with pytest.raises(UserError, match=r"lacks validation images that .* lists \(1: a/"):
            EvaluationData(run, given).images("test")


def test_a_split_that_is_lost_is_an_error(tmp_path: Path) -> None:
    source = folder(tmp_path)
    run, *_ = make_run(tmp_path / "run", source)
    (run / "split.csv").unlink()
    others = [tmp_path / "copy", tmp_path / "test"]
    for other in others:
        shutil.copytree(source, other)
    for given in (None, source, *map(str, others)):
        for split in ("test", "train"):
            with pytest.raises(UserError, match=r"split its images, .* not contain the split\.csv.*restore split\.csv"):
                EvaluationData(run, given).images(split)
    assert len(EvaluationData(run, "sample").images("test")) == 1000
    shutil.copytree(source, tmp_path / "divided" / "val")
    assert len(EvaluationData(run, str(tmp_path / "divided")).images("test")) == 48
    make_run(run, source)
    (run / "recipe.yaml").unlink()
    assert len(EvaluationData(run, source).images("test")) == 12
    with pytest.raises(
        UserError, match=r"does not contain a recipe\.yaml with a field data: give the data with --data"
    ):
        EvaluationData(run, None).images("test")


def test_a_run_without_a_split_takes_its_own_data(tmp_path: Path) -> None:
    """Of any task: the recipe says which."""
    run = tmp_path / "run"
    run.mkdir()
    make_folder(tmp_path / "photos", ("a", "b"), ("train", "val"))
    for name, content in {
        "recipe.yaml": yaml.safe_dump({"data": f"{tmp_path}/photos"}),
        "environment.json": "{}",
    }.items():
        (run / name).write_text(content)
    data = EvaluationData(run, None)
    assert (data.source, len(data.images("test")), len(data.images("train"))) == (f"{tmp_path}/photos", 4, 4)


def test_relative_data_are_named_by_their_absolute_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Relative to the folder that one is in: from another one they are not there, or are other data."""
    monkeypatch.chdir(tmp_path)
    make_folder(tmp_path / "photos", ("a", "b"), ("train", "val"))
    (run := tmp_path / "run").mkdir()
    (run / "recipe.yaml").write_text("data: photos")
    (run / "environment.json").write_text("{}")
    data = EvaluationData(run, None)
    assert (data.source, len(data.images("test"))) == (f"{tmp_path}/photos", 4)
    monkeypatch.chdir(run)
    with pytest.raises(UserError, match=f"the data of {run} were not found: {run}/photos does not exist"):
        data.images("test")
    with pytest.raises(UserError, match=f"the folder {run}/photos does not exist"):
        open_for_training("photos")


def test_images_are_called_what_they_are(run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A number on training images is not one on validation images, whoever reads it."""
    weights = shutil.copy(run.best, tmp_path / "weights.safetensors")
    photos = run.out.parent.parent / "photos"
    for name, split in {"train": "training", "Val": "validation", "photos": None}.items():
        (target := tmp_path / name).symlink_to(photos)
        out = tmp_path / "report"
        command = ["eval", str(weights), "--data", str(target), "--num-workers=0", "--device=cpu", "--out", str(out)]
        assert main(command) == 0
        words = f"48 {split} images" if split else "48 images"
        assert f"{words} of {target}" in " ".join(capsys.readouterr().out.split())
        assert f" on {words}." in (out / "evaluation.html").read_text()
        assert json.loads((out / "evaluation.json").read_text())["split"] == split
    copy = shutil.copytree(photos, tmp_path / "copy" / "train")
    assert main(["eval", str(run.out), "--data", str(copy), "--num-workers=0", "--device=cpu"]) == 0
    assert f"12 validation images of {copy} (validation split of the run)" in " ".join(capsys.readouterr().out.split())
    (tmp_path / "whole").mkdir()
    (tmp_path / "whole" / "train").symlink_to(photos)
    (tmp_path / "whole" / "val").symlink_to(photos)
    assert EvaluationData(weights, str(tmp_path / "whole")).split == "validation"
    assert EvaluationData(weights, "sample").split == EvaluationData(weights, None).split == "validation"


def test_where_a_checkpoint_lies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, *_ = make_run(tmp_path / "run", folder(tmp_path))
    (run / "best-export").mkdir()
    (run / "best-export" / "model.onnx").touch()
    (tmp_path / "link.safetensors").symlink_to(run / "best.safetensors")
    inside = (run, run / "best.safetensors", run / "best-export" / "model.onnx", tmp_path / "link.safetensors")
    for checkpoint in inside:
        found = run_of(checkpoint)
        assert found is not None
        assert found.samefile(run)
    (tmp_path / "recipe.yaml").write_text("epochs: 3")  # of a person
    (tmp_path / "model.safetensors").touch()
    for content in (b"image,label\na.png,3\n", b"\xff\xfe", b""):  # a split.csv of a person, too
        (tmp_path / "split.csv").write_bytes(content)
        assert run_of(tmp_path / "model.safetensors") is None
        assert run_of(run / "best.safetensors") == run
    monkeypatch.chdir(run)
    assert run_of("best.safetensors") == Path()
    assert run_of("timm/fastvit_t8.apple_in1k") is None, "a repository on the Hub"
    assert EvaluationData("timm/fastvit_t8.apple_in1k", None).source == "sample"
