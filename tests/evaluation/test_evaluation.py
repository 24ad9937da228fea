"""Accuracy against hand computation, and reports that stand alone."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from fastvit.bench.latency import Timing
from fastvit.evaluation.evaluate import evaluate
from fastvit.evaluation.plots import confusion_matrix, latency_bars, training_curves
from fastvit.evaluation.report import Section, Table, read_history, write_report


def test_evaluate_by_hand() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(10, 6, generator=generator)
    labels = torch.randint(0, 6, (10,), generator=generator)
    batches = [(logits[:7], labels[:7]), (logits[7:], labels[7:])]
    result = evaluate(lambda x: x, batches, 6)
    order = logits.argsort(1, descending=True)
    assert result.images == 10
    assert result.metrics["top1"] == pytest.approx((order[:, 0] == labels).double().mean().item())
    assert result.metrics["top5"] == pytest.approx((order[:, :5] == labels[:, None]).any(1).double().mean().item())
    assert result.metrics["loss"] == pytest.approx(F.cross_entropy(logits, labels).item())
    confusion = np.zeros((6, 6), int)
    np.add.at(confusion, (labels.numpy(), order[:, 0].numpy()), 1)
    assert np.array_equal(result.confusion, confusion)
    assert np.array_equal(result.predicted, order[:, 0].numpy())
    assert np.allclose(result.probability, logits.softmax(1).max(1).values.numpy())


def test_report_is_one_file_and_escapes(tmp_path: Path) -> None:
    history = {"train/loss": [(1, 2.0), (2, 1.0)], "val/top1": [(1, 0.5), (2, 0.75)]}
    timings = {"train form": Timing(2.0, 1.9, 2.2, 5), "fused": Timing(1.0, 0.9, 1.1, 5)}
    path = write_report(
        tmp_path / "report.html",
        "cats & <dogs>",
        "summary",
        [
            Section("Curves", "text", training_curves(history)),
            Section("Bars", figure=latency_bars(timings, "train form"), pixels=True),
            Section("Matrix", figure=confusion_matrix(np.eye(3, dtype=int), "abc"), table=Table(("a",), [("<1>",)])),
        ],
    )
    html = path.read_text()
    assert "cats &amp; &lt;dogs&gt;" in html
    assert "&lt;1&gt;" in html
    sources = re.findall(r'(?:src|href)="([^"]{0,30})', html)
    assert len(sources) == 3
    assert all(source.startswith(("data:image/svg+xml;base64", "data:image/png;base64")) for source in sources)
    assert torch.__version__.partition("+")[0] in html


def test_history_of_a_run(tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_text(
        "epoch,step,train/loss_epoch,train/loss_step,val/loss,val/top1\n0,9,,2.5,,\n0,9,,,1.5,0.25\n0,9,2.0,,,\n"
    )
    assert read_history(tmp_path / "metrics.csv") == {
        "val/loss": [(1.0, 1.5)],
        "val/top1": [(1.0, 0.25)],
        "train/loss": [(1.0, 2.0)],
    }
