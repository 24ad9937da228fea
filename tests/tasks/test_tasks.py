"""What every task in the table must do; a new row inherits all of it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import fastvit
from fastvit.cli.main import main
from fastvit.export.export import export
from fastvit.export.options import ExportOptions
from fastvit.export.target import TARGETS
from fastvit.model.task_model import TaskModel
from fastvit.tasks.table import TASKS, find_task
from tests.tasks.small_models import leaves, small_model

# Those whose export takes half a minute.
SLOW = ("detection",)


@pytest.fixture(scope="module", params=TASKS)
def model(request: pytest.FixtureRequest) -> TaskModel:
    return small_model(request.param)


@pytest.fixture(scope="module")
def picture() -> Image.Image:
    """Of 64 pixels a side, in blocks of colors."""
    coarse = np.random.default_rng(0).integers(0, 256, (4, 4, 3), np.uint8)
    return Image.fromarray(coarse.repeat(16, 0).repeat(16, 1))


def test_a_row_and_its_network_have_one_name(model: TaskModel) -> None:
    spec = find_task(model.task)
    assert spec.name == model.task
    assert isinstance(model, spec.model_class())
    assert spec.headline in spec.metrics


def test_an_unknown_task_is_named_with_those_that_there_are() -> None:
    with pytest.raises(fastvit.UserError, match=r".*".join(["poetry", *TASKS])):
        find_task("poetry")


def test_predictions_stay_the_same(model: TaskModel, picture: Image.Image, tmp_path: Path) -> None:
    """Fused, saved and loaded; and for JSON."""
    path = fastvit.save(model, tmp_path / "model.safetensors")
    (expected,) = fastvit.Predictor(model)(picture)
    content = json.loads(json.dumps(expected.record()))
    assert content["predictions"]
    assert expected.summary()
    for source in (fastvit.fuse(model), path):
        (found,) = fastvit.Predictor(source, runtime="torch")(picture)
        assert leaves(found.record()) == pytest.approx(leaves(content), abs=1e-3)


@pytest.mark.parametrize(
    "task", [pytest.param(name, marks=[pytest.mark.slow] if name in SLOW else []) for name in TASKS]
)
def test_the_default_export_is_proved(task: str, picture: Image.Image, tmp_path: Path) -> None:
    model = small_model(task)
    path = tmp_path / "model.onnx"
    exported = export(model, TARGETS["onnx"], path, [picture, picture.rotate(90)], ExportOptions())
    assert exported.proof
    (expected,), (found,) = fastvit.Predictor(model)(picture), fastvit.Predictor(path, runtime="onnxruntime")(picture)
    assert type(found) is type(expected)
    assert len(leaves(found.record())) == len(leaves(expected.record()))


def test_info_tells_the_task(model: TaskModel, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = fastvit.save(model, tmp_path / "model.safetensors")
    assert main(["info", str(path)]) == 0
    assert model.task in capsys.readouterr().out
