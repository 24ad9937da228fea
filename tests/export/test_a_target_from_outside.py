"""An export target and its runtime that another package adds: exported, proved, used, with no word in the package."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import fastvit
from fastvit.cli.main import main
from fastvit.export.target import TARGETS
from fastvit.runtime.artifact import RUNTIMES
from tests.export.torchscript import RUNTIME, TARGET
from tests.helpers import randomize, tiny


@pytest.fixture
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fastvit.export.target.TARGETS", TARGETS)
    before = dict(TARGETS), dict(RUNTIMES)
    fastvit.register_runtime(RUNTIME)
    fastvit.register_target(TARGET)
    yield
    for table, rows in zip((TARGETS, RUNTIMES), before, strict=True):
        table.clear()
        table.update(rows)


@pytest.mark.usefixtures("registered")
def test_it_is_exported_proved_and_used(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = randomize(tiny(classes=tuple("abcdefghij"), preprocessing=fastvit.Preprocessing((32, 32))))
    checkpoint = fastvit.save(model, tmp_path / "model.safetensors")
    out = ["--out", str(tmp_path / "export"), "--images", "4"]
    assert main(["export", str(checkpoint), "--to", "torchscript", *out]) == 0
    assert "torchscript: max abs" in capsys.readouterr().out
    predictor = fastvit.Predictor(tmp_path / "export" / "custom-fp32.torchscript")
    assert predictor.runtime == "torchscript"
    image = np.random.default_rng(0).integers(0, 256, (40, 40, 3), np.uint8)
    ours, theirs = predictor(image)[0], fastvit.Predictor(model)(image)[0]
    assert [label.name for label in ours.labels] == [label.name for label in theirs.labels]
    assert ours.labels[0].probability == pytest.approx(theirs.labels[0].probability, abs=1e-5)
    with pytest.raises(fastvit.UserError, match="the export target 'torchscript' exists already"):
        fastvit.register_target(TARGET)


def test_an_unknown_target_lists_those_that_there_are(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    checkpoint = fastvit.save(tiny(), tmp_path / "model.safetensors")
    assert main(["export", str(checkpoint), "--to", "torchscript"]) == 2
    errors = capsys.readouterr().err
    assert "unknown export target 'torchscript': did you mean torch? Choose from onnx, openvino" in errors
