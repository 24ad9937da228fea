"""Steps of training side by side: what is trained and what is counted; never the time itself."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

import fastvit
from fastvit.bench.train_steps import (
    STEP_CONFIGURATIONS,
    StepResult,
    _activation_mb,
    bench_steps,
    find_step_configurations,
    step_table,
)
from fastvit.cli.main import main
from fastvit.timing import Timing


def test_configurations_by_name() -> None:
    assert not any(configuration.compiled for configuration in find_step_configurations("auto", "cpu"))
    assert (
        find_step_configurations("auto", "cuda")
        == find_step_configurations("all", "cpu")
        == list(STEP_CONFIGURATIONS.values())
    )
    assert [configuration.name for configuration in find_step_configurations("timm, collapsed", "cpu")] == [
        "timm",
        "collapsed",
    ]
    with pytest.raises(fastvit.UserError, match="step configuration 'tvm'; choose from auto, all, timm"):
        find_step_configurations("timm,tvm", "cpu")


def test_steps_are_timed_and_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--configurations", "timm,collapsed-channels-last", "--batch", "8", "--size", "64", "--rounds", "1"]
    assert main(["bench", "train", "t8", *options, "--device", "cpu", "--out", str(tmp_path / "out")]) == 0
    said = capsys.readouterr().out
    assert "speedup over timm" in said
    with (tmp_path / "out" / "steps.csv").open() as file:
        rows = {row["configuration"]: row for row in csv.DictReader(file)}
    assert list(rows) == ["timm", "collapsed-channels-last"]
    medians = [float(row["median_ms"]) for row in rows.values()]
    assert float(rows["collapsed-channels-last"]["speedup"]) == pytest.approx(medians[0] / medians[1])
    assert 0 < float(rows["collapsed-channels-last"]["activation_mb"]) < float(rows["timm"]["activation_mb"])


def test_a_row_by_hand() -> None:
    """Eight images in 250 ms, twice as fast as timm."""
    timing = Timing(250.0, 240.0, 265.0, 30)
    (row,) = step_table(
        [StepResult("t8", STEP_CONFIGURATIONS["plain"], 8, 64, timing, activation_mb=12.4, speedup=2.0)]
    ).rows
    assert row == ["t8", "plain", "8", "64", "250.0", "240.0 to 265.0", "yes", "32.0", "2.00x", "12"]


def test_what_fails_is_told() -> None:
    """A configuration that cannot be gone: the other is timed all the same."""
    plain = STEP_CONFIGURATIONS["plain"]
    results = bench_steps("t8", [replace(plain, collapse="fast"), plain], 2, 32, rounds=1)
    assert "unknown collapse mode 'fast'" in results[0].failure
    assert results[0].timing is None
    assert len(step_table(results).rows) == 1
    with pytest.raises(fastvit.UserError, match="batch must be at least 2"):
        bench_steps("t8", [], 1, 32)


def test_mistakes() -> None:
    assert main(["bench", "train", "t8", "--size", "64x96"]) == 2
    assert main(["bench", "train", "t9", "--configurations", "plain", "--rounds", "1"]) == 2


def test_what_is_kept_by_hand() -> None:
    """A convolution keeps its input, which is the image, and ReLU its output, once for both that want it."""
    network = nn.Sequential(nn.Conv2d(3, 8, 1), nn.ReLU(), nn.Conv2d(8, 5, 1))
    images = torch.randn(2, 3, 4, 4)
    assert _activation_mb(lambda: network(images).sum(), network, images) == pytest.approx(4 * 2 * 8 * 16 / 1e6)
