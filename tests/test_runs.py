"""What is read from a run's folder, and the page that is made of it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from PIL import Image

import fastvit
from fastvit.runs.history import History, read_history
from fastvit.runs.settings import read_json, read_settings
from fastvit.training.run_report import write_run_report
from tests.evaluation.runs import make_run
from tests.helpers import tiny


def test_history(tmp_path: Path) -> None:
    history = read_history(make_run(tmp_path / "run", top1=0.5) / "metrics.csv")
    assert (history.epochs, history.steps) == (2, 20)
    assert history.series["train/loss"] == [(1, 2.0), (2, 2.0)]
    assert history.series["val/loss"] == [(1, 1.5), (2, 1.4)]
    assert history.series["val/top1"] == [(1, 0.4), (2, 0.5)]
    assert "val/top5" not in history.series
    # Steps 4 and 14 of 10 an epoch.
    assert history.series["lr"] == [pytest.approx((0.4, 0.1)), pytest.approx((1.4, 0.05))]
    assert read_history(tmp_path / "none.csv") == History()


def test_settings_are_flat_and_say_nothing_of_places(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text("out: there\nepochs: 3\noptim:\n  lr: 0.1\n  betas: [0.9, 0.99]\n")
    assert read_settings(path) == {"epochs": 3, "optim.lr": 0.1, "optim.betas": [0.9, 0.99]}
    path.write_text("- a list")
    with pytest.raises(fastvit.UserError, match="is not a recipe"):
        read_settings(path)
    path.write_text("a: [")
    with pytest.raises(fastvit.UserError, match="is not valid YAML"):
        read_settings(path)


def test_damaged_json(tmp_path: Path) -> None:
    path = tmp_path / "robustness.json"
    assert read_json(path) == {}
    for content in ("{", "[]"):
        path.write_text(content)
        with pytest.raises(fastvit.UserError, match="robustness.json is corrupt"):
            read_json(path)


@pytest.mark.parametrize("epochs", [1, 2])
def test_run_report(tmp_path: Path, epochs: int) -> None:
    run = make_run(tmp_path / "run", epochs, optim={"lr": 0.123})
    html = write_run_report(run).read_text()
    for part in ("50.00%", "optim.lr", "0.123", "a very fast one", "<h2>Training curves</h2>"):
        assert part in html
    assert "precision" not in html, "a setting that is as by default"
    assert all(source.startswith("data:image/") for source in re.findall(r'(?:src|href)="([^"]{0,20})', html))
    with Image.open(run / "curves.png") as picture:
        assert picture.width > 500


def test_run_report_of_what_there_is(tmp_path: Path) -> None:
    with pytest.raises(fastvit.UserError, match="does not contain a run"):
        write_run_report(tmp_path)
    fastvit.save(tiny(), tmp_path / "best.safetensors")
    html = write_run_report(tmp_path).read_text()
    assert "<h2>Training curves</h2>" not in html
    assert "<h2>Settings</h2>" not in html
