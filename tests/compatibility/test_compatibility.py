"""What an older version wrote loads, and computes what it did: see README.md."""

from __future__ import annotations

import csv
import gzip
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

import fastvit
from fastvit.cli.main import main
from fastvit.model.config import FastViTConfig, Stage
from fastvit.model.variants import VARIANTS, Variant
from tests.compatibility.inputs import CLASSES, EPOCHS, VARIANT, images, outputs, picture, write_photos

FILES = Path(__file__).parent / "files"
CHECKPOINTS = sorted(path.name.removesuffix(".safetensors.gz") for path in FILES.glob("*.safetensors.gz"))


@pytest.fixture(scope="module")
def expected() -> dict[str, np.ndarray]:
    with np.load(FILES / "expected.npz") as arrays:
        return dict(arrays)


def unpacked(source: Path, folder: Path) -> Path:
    """A copy of a file or a folder, whatever ends in .gz without its compression."""
    target = folder / source.name.removesuffix(".gz")
    if source.is_dir():
        target.mkdir()
        for path in source.iterdir():
            unpacked(path, target)
    elif source.suffix == ".gz":
        target.write_bytes(gzip.decompress(source.read_bytes()))
    else:
        shutil.copy(source, target)
    return target


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_a_checkpoint_gives_equal_outputs(name: str, expected: dict[str, np.ndarray], tmp_path: Path) -> None:
    model = fastvit.load(unpacked(FILES / f"{name}.safetensors.gz", tmp_path)).double().eval()
    task, _, form = name.partition("-")
    assert (model.task, fastvit.form(model), model.variant) == (task, form or "train", "custom")
    if task != "hand_mesh":
        assert model.classes == CLASSES
        assert model.preprocessing.size == (64, 64)
    shown = torch.from_numpy(images())
    with torch.no_grad():
        found = outputs(model(list(shown) if task == "detection" else shown))
    stored = {key.removeprefix(name).strip(): value for key, value in expected.items() if key.split()[0] == name}
    assert stored
    assert found.keys() == stored.keys()
    for key, value in stored.items():
        np.testing.assert_allclose(found[key], value, rtol=1e-6, atol=1e-6, err_msg=key)


def test_every_task_of_the_time_has_a_checkpoint() -> None:
    assert {name.partition("-")[0] for name in CHECKPOINTS} == {
        "classification", "detection", "segmentation", "hand_mesh"
    }  # fmt: skip


def test_an_artifact_gives_equal_outputs(expected: dict[str, np.ndarray], tmp_path: Path) -> None:
    predictor = fastvit.Predictor(unpacked(FILES / "classification.onnx.gz", tmp_path), runtime="onnxruntime")
    assert predictor.classes == CLASSES
    (output,) = predictor(picture())
    found = [label.probability for label in sorted(output.labels, key=lambda label: label.index)]
    np.testing.assert_allclose(found, expected["artifact"], rtol=1e-5, atol=1e-6)


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The run, in the current folder, beside its photos; its variant is one that its user had registered."""
    config = FastViTConfig((Stage(8, 1, mlp_ratio=1.0),))
    monkeypatch.setitem(VARIANTS, VARIANT, Variant(VARIANT, config, params=0, params_fused=0, gmacs=0.0))
    monkeypatch.chdir(tmp_path)
    write_photos(Path("photos"))
    return unpacked(FILES / "run", tmp_path).name


def rows(path: str | Path) -> list[dict[str, float]]:
    with Path(path).open(newline="") as file:
        return [{key: float(value) for key, value in row.items() if value} for row in csv.DictReader(file)]


def test_a_run_is_evaluated_on_the_images_that_it_held_out(run: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["eval", run, "--json", "--device=cpu", "--num-workers=0"]) == 0
    found = json.loads(capsys.readouterr().out)
    best = max(rows(Path(run, "metrics.csv")), key=lambda row: row["val/top1"])
    assert found["images"] == 9
    assert (found["top1"], found["loss"]) == (
        pytest.approx(best["val/top1"]),
        pytest.approx(best["val/loss"], abs=1e-5),
    )


def test_a_run_goes_on(run: str) -> None:
    """To the metrics to which the older version went on."""
    assert len(rows(Path(run, "metrics.csv"))) == EPOCHS - 1
    assert main(["train", f"--resume={run}"]) == 0
    found, stored = rows(Path(run, "metrics.csv")), rows(FILES / "resumed.csv")
    assert len(found) == len(stored) == EPOCHS
    for ours, theirs in zip(found, stored, strict=True):
        assert ours == pytest.approx(theirs, rel=1e-5)


def test_a_run_stands_beside_others(run: str) -> None:
    shutil.copytree(run, "again")
    assert main(["compare", run, "again", "--no-latency", "--out", "compared.html"]) == 0
    page = Path("compared.html").read_text()
    assert page.count("66.67") >= 2
    assert "again" in page
