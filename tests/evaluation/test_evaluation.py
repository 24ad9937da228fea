"""Accuracy against hand computation, and reports that stand alone."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

import fastvit
from fastvit.cli.main import main
from fastvit.data.datasets import IGNORED
from fastvit.errors import UserError
from fastvit.evaluation.evaluate import evaluate
from fastvit.reports.metric_format import TOP1
from fastvit.reports.page import Section, Table, write_report
from fastvit.reports.plots import confusion_matrix, latency_bars, training_plots
from fastvit.synthetic.scenes import SEMANTIC_CLASSES, write_scenes
from fastvit.tasks.classification.class_tables import classes_by_accuracy, confused_pairs
from fastvit.timing import Timing
from tests.helpers import Clock, tiny
from tests.tasks.contracts import make_segmenter


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


def test_images_of_the_class_ignored_are_in_no_number() -> None:
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(12, 6, generator=generator)
    labels = torch.randint(0, 6, (12,), generator=generator)
    some = labels.clone()
    some[[0, 5, 11]] = IGNORED
    kept = some != IGNORED
    result = evaluate(lambda x: x, [(logits[:8], some[:8]), (logits[8:], some[8:])], 6)
    expected = evaluate(lambda x: x, [(logits[kept], labels[kept])], 6)
    assert (result.images, result.skipped) == (9, 3)
    assert result.metrics == pytest.approx(expected.metrics)
    assert np.array_equal(result.confusion, expected.confusion)
    assert len(result.targets) == 12
    with pytest.raises(UserError, match="no images to evaluate"):
        evaluate(lambda x: x, [(logits, torch.full((12,), IGNORED))], 6)


def test_classes_by_hand() -> None:
    # Class 0: 2 of 3 right; class 1: 0 of 1; class 2: no image; class 3: 1 of 1.
    labels = torch.tensor([0, 0, 0, 1, 3])
    logits = F.one_hot(torch.tensor([0, 0, 2, 3, 3]), 4).float()
    result = evaluate(lambda x: x, [(logits, labels)], 4)
    assert result.class_images.tolist() == [3, 1, 0, 1]
    assert np.allclose(result.class_accuracy, [2 / 3, 0, np.nan, 1], equal_nan=True)
    names = ["a", "b", "c", "d"]
    assert classes_by_accuracy(result, names) == [("b", "1", "0.00%"), ("a", "3", "66.67%"), ("d", "1", "100.00%")]
    assert confused_pairs(result, names) == [("a", "c", "1", "33% of 3"), ("b", "d", "1", "100% of 1")]
    assert "top5" not in result.metrics
    assert result.speed is None, "one batch warms up and leaves nothing to time"


def test_throughput_leaves_the_first_batch_out(clock: Clock) -> None:
    """Batches of 4, 4 and 2 images that take 0.5 s to read and 10, 0.25 and 0.75 s to classify."""
    read, classify = clock.takes(0.5), clock.takes(10, 0.25, 0.75)

    def batches() -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        for count in (4, 4, 2):
            read()
            yield torch.zeros(count, 3), torch.zeros(count, dtype=torch.long)

    result = evaluate(lambda images: (classify(), images)[1], batches(), 3)
    assert result.speed is not None
    assert result.speed.model == pytest.approx((4 + 2) / (0.25 + 0.75))
    assert result.speed.overall == pytest.approx((4 + 2) / (0.5 + 0.25 + 0.5 + 0.75))


def test_report_is_one_file_and_escapes(tmp_path: Path) -> None:
    history = {"train/loss": [(1, 2.0), (2, 1.0)], "val/top1": [(1, 0.5), (2, 0.75)]}
    timings = {"train form": Timing(2.0, 1.9, 2.2, 5), "fused": Timing(1.0, 0.9, 1.1, 5)}
    path = write_report(
        tmp_path / "report.html",
        "cats & <dogs>",
        "summary",
        [
            Section("Curves", "text", training_plots(history, {"top1": TOP1})),
            Section("Bars", plots=[latency_bars(timings, "train form")]),
            Section("Matrix", plots=[confusion_matrix(np.eye(3, dtype=int), "abc")], table=Table(("a",), [("<1>",)])),
        ],
    )
    html = path.read_text()
    assert "cats &amp; &lt;dogs&gt;" in html
    assert "&lt;1&gt;" in html
    sources = re.findall(r'(?:src|href)="([^"]{0,30})', html)
    assert len(sources) == 4
    assert all(source.startswith("data:image/svg+xml;base64") for source in sources)
    assert torch.__version__.partition("+")[0] in html


def test_images_a_second_leave_the_first_image_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of a task whose images go one at a time, on a clock that goes on by a quarter of a second with every look."""
    write_scenes(tmp_path / "scenes", 15, 64, seed=0)  # three of them more to validate on
    model = make_segmenter("fpn", tiny(num_classes=len(SEMANTIC_CLASSES)).config, classes=SEMANTIC_CLASSES)
    path = fastvit.save(model, tmp_path / "model.safetensors")
    looks = itertools.count()
    monkeypatch.setattr("time.perf_counter", lambda: next(looks) / 4)
    assert (
        main(["eval", str(path), "--data", str(tmp_path / "scenes"), "--json", "--num-workers=0", "--size=64x64"]) == 0
    )
    found = json.loads(capsys.readouterr().out)
    assert (found["images"], found["images_per_second"]) == (3, 4.0)
