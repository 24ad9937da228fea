"""Per-class results of an evaluation, as rows of text."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fastvit.evaluation.evaluate import Evaluation


def classes_by_accuracy(result: Evaluation, names: Sequence[str]) -> list[tuple[str, str, str]]:
    """Return name, number of images and top-1 accuracy of each class that has images, the worst first."""
    present = np.flatnonzero(result.class_images)
    order = present[np.argsort(result.class_accuracy[present], kind="stable")]
    return [(names[c], str(result.class_images[c]), f"{result.class_accuracy[c]:.2%}") for c in order]


def confused_pairs(result: Evaluation, names: Sequence[str], count: int = 30) -> list[tuple[str, str, str, str]]:
    """Return the most frequent confusions: true class, predicted class, number of images, share of the true class.

    Args:
        result: evaluation with a confusion matrix.
        names: names of the classes.
        count: largest number of rows.
    """
    wrong = result.confusion * (1 - np.eye(len(result.confusion), dtype=int))
    order = np.argsort(-wrong, axis=None, kind="stable")[: min(count, np.count_nonzero(wrong))]
    rows = []
    for true, predicted in zip(*np.unravel_index(order, wrong.shape), strict=True):
        times, images = int(wrong[true, predicted]), int(result.class_images[true])
        rows.append((names[true], names[predicted], str(times), f"{times / images:.0%} of {images}"))
    return rows
