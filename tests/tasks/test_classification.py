"""The classification task: loss, metrics, decoding, data."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from fastvit.errors import UserError
from fastvit.model.preprocessing import Preprocessing
from fastvit.predict.prediction import Limits
from fastvit.tasks.classification.data import ClassificationData, open_for_run
from fastvit.tasks.classification.drawing import prediction_sheet
from fastvit.tasks.classification.module import ClassificationTask, accuracy
from fastvit.tasks.classification.options import MixupOptions
from fastvit.tasks.classification.prediction import decode, softmax
from fastvit.tasks.classification.spec import SPEC
from fastvit.weights.description import Description
from tests.helpers import tiny


def test_decode_by_hand() -> None:
    logits = np.log([[0.1, 0.7, 0.2], [0.5, 0.2, 0.3]])
    first, second = decode(softmax(logits), ("a", "b", "c"), k=2)
    assert [(label.index, label.name) for label in first] == [(1, "b"), (2, "c")]
    assert [label.probability for label in second] == pytest.approx([0.5, 0.3])
    assert [label.name for label in decode(softmax(logits), None, k=9)[0]] == ["1", "2", "0"]


def test_no_column_without_a_class() -> None:
    network = Description.of(tiny(num_classes=3))
    assert SPEC.table_header(network, Limits(5)) == ["top 1", "top 2", "top 3"]
    assert SPEC.table_header(network, Limits(2)) == ["top 1", "top 2"]


def test_accuracy_by_hand() -> None:
    metrics = accuracy(7)
    logits = torch.eye(7)[[0, 1, 2, 3]] + torch.tensor([0.0, 0.01, 0.02, 0.03, 0.04, 0.05, 0.06])
    metrics.update(logits, torch.tensor([0, 1, 6, 0]))
    assert {k: round(v.item(), 6) for k, v in metrics.compute().items()} == {"top1": 0.5, "top5": 0.75}
    assert "top5" not in accuracy(5)


def test_loss_with_hard_soft_and_smoothed_labels() -> None:
    logits, targets = torch.randn(4, 10), torch.tensor([1, 2, 3, 4])
    task = ClassificationTask(tiny(), MixupOptions(mixup=0, cutmix=0, label_smoothing=0.1))
    log_p = F.log_softmax(logits, 1)
    smoothed = -(0.9 * log_p[torch.arange(4), targets] + 0.1 * log_p.mean(1)).mean()
    torch.testing.assert_close(task.loss(logits, targets), smoothed)
    soft = torch.rand(4, 10).softmax(1)
    torch.testing.assert_close(task.loss(logits, soft), -(soft * log_p).sum(1).mean())
    task.model = nn.Identity()
    task.validate(logits, targets)
    loss = task.val_loss.compute() / task.val_count.compute()
    torch.testing.assert_close(loss, F.cross_entropy(logits, targets))


def test_mixing_makes_soft_labels_that_sum_to_one() -> None:
    task = ClassificationTask(tiny(), MixupOptions(mixup=0.2, cutmix=1.0, label_smoothing=0.1))
    images, targets = task.prepare(torch.randn(4, 3, 32, 32), torch.tensor([0, 1, 2, 3]))
    assert targets.shape == (4, 10)
    torch.testing.assert_close(targets.sum(1), torch.ones(4))
    odd = torch.randn(3, 3, 32, 32)
    assert task.prepare(odd, torch.tensor([0, 1, 2]))[0] is odd, "an odd batch cannot be paired"


def test_classes_that_differ_from_those_of_a_checkpoint_are_named() -> None:
    many = tuple(f"c{index}" for index in range(300))
    for now, before, message in (
        ((*many, "new"), (*many, "old", "older"), "added 1: new and removed 2: old, older;"),
        (("a", "b", "c"), ("a", "b"), "started with: added 1: c;"),
        (("a", "c", "b"), ("a", "b", "c"), "their order differs from class 1 on: c instead of b;"),
    ):
        task = ClassificationTask(tiny(num_classes=len(now), classes=now))
        with pytest.raises(UserError, match=message):
            task.on_load_checkpoint({"classes": list(before)})


def test_data_module() -> None:
    data = ClassificationData(open_for_run("sample"), Preprocessing((32, 32)), 500, num_workers=0)
    images, labels = next(iter(data.val_dataloader()))
    assert images.shape == (500, 3, 32, 32)
    assert labels.dtype == torch.int64
    assert len(data.train_dataloader()) == 11


def test_sheet_names_the_mistakes() -> None:
    from PIL import Image

    guesses = [label for row in decode(softmax(np.eye(2)), ("cat", "dog"), 1) for label in row]
    figure = prediction_sheet([Image.new("RGB", (4, 4))] * 2, guesses, ["cat", "cat"], columns=2)
    titles = [axes.get_title() for axes in figure.axes]
    assert titles == ["cat 73%\n", "dog 73%\ntrue: cat"]
