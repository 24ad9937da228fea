"""Metrics of segmentation against a confusion matrix counted by hand, and inference by windows."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from fastvit.errors import UserError
from fastvit.tasks.segmentation.inference import resized, slide, starts
from fastvit.tasks.segmentation.metrics import per_class_accuracy, per_class_iou, segmentation_metrics

K = 6


def sample(seed: int, *size: int) -> tuple[Tensor, Tensor]:
    """Predictions and masks in which class 4 is never true, class 5 is nowhere, and a part is ignored."""
    generator = np.random.default_rng(seed)
    output = generator.integers(0, 5, size)
    target = np.where(generator.random(size) < 0.5, np.minimum(output, 3), generator.integers(0, 4, size))
    target[generator.random(size) < 0.2] = 255
    return torch.from_numpy(output), torch.from_numpy(target.astype(np.uint8))


def by_hand(pairs: list[tuple[Tensor, Tensor]]) -> tuple[np.ndarray, dict[str, float]]:
    output = np.concatenate([output.numpy().ravel() for output, _ in pairs])
    target = np.concatenate([target.numpy().ravel().astype(int) for _, target in pairs])
    counted = target != 255
    confusion = np.bincount(target[counted] * K + output[counted], minlength=K * K).reshape(K, K)
    right, true, predicted = np.diag(confusion), confusion.sum(1), confusion.sum(0)
    occurs = true + predicted > 0
    iou = right[occurs] / (true + predicted - right)[occurs]
    accuracy = right[true > 0] / true[true > 0]
    numbers = {"miou": iou.mean(), "pixel_accuracy": right.sum() / confusion.sum(), "mean_accuracy": accuracy.mean()}
    return confusion, numbers


@pytest.mark.parametrize("deterministic", [False, True])
def test_metrics_of_images_of_several_sizes(deterministic: bool) -> None:
    pairs = [sample(0, 13, 17), sample(1, 5, 9), sample(2, 20, 3)]
    confusion, expected = by_hand(pairs)
    assert confusion[:, 4].sum() > 0
    assert confusion[4].sum() == confusion[5].sum() == confusion[:, 5].sum() == 0
    metrics = segmentation_metrics(K).clone(prefix="val/")
    torch.use_deterministic_algorithms(deterministic)
    try:
        metrics.update([pairs[0][0], pairs[1][0]], [pairs[0][1], pairs[1][1]])
        metrics.update([pairs[2][0]], [pairs[2][1].long()])
    finally:
        torch.use_deterministic_algorithms(False)
    assert {name: value.item() for name, value in metrics.compute().items()} == pytest.approx(
        {f"val/{name}": value for name, value in expected.items()}, abs=1e-6
    )
    counts = metrics["val/miou"].confmat
    assert counts.tolist() == confusion.tolist()
    iou, accuracy = per_class_iou(counts), per_class_accuracy(counts)
    assert iou.isnan().tolist() == [False] * 5 + [True]
    assert accuracy.isnan().tolist() == [False] * 4 + [True] * 2
    assert (iou[4], iou.nanmean()) == (0, pytest.approx(expected["miou"]))
    assert accuracy.nanmean() == pytest.approx(expected["mean_accuracy"])


def test_stacked_images_count_as_single_ones() -> None:
    output, target = sample(3, 2, 8, 8)
    stacked, single = segmentation_metrics(K), segmentation_metrics(K)
    stacked.update(output, target)
    for i in range(2):
        single.update([output[i]], [target[i]])
    assert stacked.compute() == single.compute()
    assert stacked["miou"].confmat.sum() == (target != 255).sum()


def test_processes_add_up_their_counts() -> None:
    pairs = [sample(6, 9, 9), sample(7, 4, 5)]
    metrics = segmentation_metrics(K).clone(prefix="val/")
    metrics.update([pairs[0][0]], [pairs[0][1]])
    other = torch.from_numpy(by_hand(pairs[1:])[0])
    for metric in metrics.values():
        metric.distributed_available_fn = lambda: True
        metric.dist_sync_fn = lambda counts, group: [counts, other]
    expected = by_hand(pairs)[1]
    for _ in range(2):  # a second time it must not add them again
        values = metrics.compute()
        assert {name.removeprefix("val/"): value.item() for name, value in values.items()} == pytest.approx(expected)
    assert metrics["miou"].confmat.tolist() == by_hand(pairs[:1])[0].tolist(), "its own again"


def test_what_is_all_ignored_changes_nothing() -> None:
    metrics = segmentation_metrics(K)
    metrics.update([torch.zeros(4, 4).long()], [torch.full((4, 4), 255)])
    assert all(value.isnan() for value in metrics.compute().values())
    pair = sample(4, 7, 7)
    metrics.update([pair[0]], [pair[1]])
    assert metrics.compute()["miou"].item() == pytest.approx(by_hand([pair])[1]["miou"], abs=1e-6)
    metrics.reset()
    assert metrics["mean_accuracy"].confmat.sum() == 0


def test_the_matrix_is_counted_once(monkeypatch: pytest.MonkeyPatch) -> None:
    from fastvit.tasks.segmentation import metrics as module

    calls = []
    count = module._confusion
    monkeypatch.setattr(module, "_confusion", lambda *arguments: calls.append(1) or count(*arguments))
    metrics = segmentation_metrics(K).clone(prefix="val/")
    output, target = sample(5, 4, 4)
    for _ in range(3):
        metrics.update([output], [target])
    assert len(calls) == 3


def test_what_does_not_fit_is_not_counted() -> None:
    metrics = segmentation_metrics(K)
    with pytest.raises(ValueError, match=r"shape \(2, 3\), their mask \(3, 2\)"):
        metrics.update([torch.zeros(2, 3).long()], [torch.zeros(3, 2).long()])
    with pytest.raises(ValueError, match="argument 2"):
        metrics.update([torch.zeros(2, 2).long()], [torch.zeros(2, 2).long()] * 2)


def _neighbors(images: Tensor) -> Tensor:
    """Depends on what lies around, so that windows differ where they end."""
    kernel = torch.arange(2 * 3 * 25, dtype=images.dtype).sin().view(2, 3, 5, 5)
    return F.conv2d(images, kernel, padding=2)


@pytest.mark.parametrize(
    ("height", "width", "window", "stride"),
    [(31, 45, 16, 10), (16, 16, 16, 16), (40, 33, 16, 16), (9, 45, 16, 11), (7, 5, 16, 1), (18, 17, 4, 1)],
)
def test_windows_as_a_loop_by_hand(height: int, width: int, window: int, stride: int) -> None:
    images = torch.randn(2, 3, height, width, dtype=torch.float64)
    total, count = torch.zeros(2, 2, height, width, dtype=torch.float64), torch.zeros(height, width)
    corners = set()
    for top in range(0, height, stride):
        for left in range(0, width, stride):
            bottom, right = min(top + window, height), min(left + window, width)
            corners.add((max(bottom - window, 0), max(right - window, 0), bottom, right))
    for top, left, bottom, right in corners:
        total[..., top:bottom, left:right] += _neighbors(images[..., top:bottom, left:right])
        count[top:bottom, left:right] += 1
    assert count.min() >= 1
    logits = slide(_neighbors, images, window, stride)
    assert logits.dtype == torch.float64
    torch.testing.assert_close(logits, total / count, rtol=0, atol=1e-12)
    pointwise = slide(lambda part: part[:, :2] * 3 + 1, images, window, stride)
    torch.testing.assert_close(pointwise, images[:, :2] * 3 + 1, rtol=0, atol=1e-14)


def test_windows_cover_a_row() -> None:
    assert starts(45, 16, 10) == [0, 10, 20, 29]
    assert starts(36, 16, 10) == [0, 10, 20]
    assert starts(9, 16, 10) == [0]
    with pytest.raises(UserError, match="must be 1 to 16, got 17"):
        slide(_neighbors, torch.zeros(1, 3, 20, 20), 16, 17)
    with pytest.raises(UserError, match="got 0"):
        slide(_neighbors, torch.zeros(1, 3, 20, 20), 16, 0)


def test_the_mean_of_half_precision_is_taken_in_single() -> None:
    assert slide(lambda part: part.bfloat16(), torch.ones(1, 2, 9, 9), 4, 1).dtype == torch.float32


def test_resized_to_any_size() -> None:
    logits = torch.randn(1, 3, 8, 6)
    assert resized(logits, (33, 17)).shape == (1, 3, 33, 17)
    expected = F.interpolate(logits, (33, 17), mode="bilinear", align_corners=False)
    assert torch.equal(resized(logits, (33, 17)), expected)
    assert torch.equal(resized(logits, (8, 6)), logits)
