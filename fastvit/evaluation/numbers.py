"""How the numbers of an evaluation are called and written, on the terminal and in reports."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fastvit.evaluation.evaluate import Evaluation

_AP = {
    "ap": "AP",
    "ap50": "AP50",
    "ap75": "AP75",
    "ap_small": "AP small",
    "ap_medium": "AP medium",
    "ap_large": "AP large",
}
METRICS = {
    "top1": "top-1",
    "top5": "top-5",
    "loss": "loss",
    "ece": "ECE",
    "real_top1": "ReaL top-1",
    "real_top5": "ReaL top-5",
    **{f"{kind}_{metric}": f"{kind} {label}" for kind in ("box", "mask") for metric, label in _AP.items()},
    "miou": "mIoU",
    "pixel_accuracy": "pixel accuracy",
    "mean_accuracy": "mean accuracy",
    "pa_mpjpe": "PA-MPJPE",
    "pa_mpvpe": "PA-MPVPE",
    "mpjpe": "MPJPE",
    "mpvpe": "MPVPE",
    "f5": "F@5 mm",
    "f15": "F@15 mm",
    "auc": "AUC",
}
# Errors in millimetres; other metrics but the loss are fractions.
_LENGTHS = ("pa_mpjpe", "pa_mpvpe", "mpjpe", "mpvpe", "joint error")


def unit(metric: str) -> tuple[float, str]:
    """What to multiply a metric with to show it, and its unit then."""
    return (1.0, "mm") if metric in _LENGTHS else (100.0, "percent")


def as_text(metric: str, value: float) -> str:
    """A metric's value: shares in percent, lengths in mm, the loss as it is, a dash where nothing was measured."""
    if value != value:
        return "-"
    if metric in _LENGTHS:
        return f"{value:.2f} mm"
    return f"{value:.4f}" if metric == "loss" else f"{value:.2%}"


def classes_by_accuracy(result: Evaluation, names: Sequence[str]) -> list[tuple[str, str, str]]:
    """Name, number of images and accuracy of each class that has images, the worst first."""
    present = np.flatnonzero(result.class_images)
    order = present[np.argsort(result.class_accuracy[present], kind="stable")]
    return [(names[c], str(result.class_images[c]), f"{result.class_accuracy[c]:.2%}") for c in order]


def confused_pairs(result: Evaluation, names: Sequence[str], count: int = 30) -> list[tuple[str, str, str, str]]:
    """True class, predicted class, how often, and as a share of the true class's images: the most frequent mistakes."""
    wrong = result.confusion * (1 - np.eye(len(result.confusion), dtype=int))
    order = np.argsort(-wrong, axis=None, kind="stable")[: min(count, np.count_nonzero(wrong))]
    rows = []
    for true, predicted in zip(*np.unravel_index(order, wrong.shape), strict=True):
        times, images = int(wrong[true, predicted]), int(result.class_images[true])
        rows.append((names[true], names[predicted], str(times), f"{times / images:.0%} of {images}"))
    return rows
