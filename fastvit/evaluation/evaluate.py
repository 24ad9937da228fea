"""Evaluate a classifier: any function from images to logits."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torchmetrics
from torch import Tensor
from torch.nn import functional as F
from torchmetrics.classification import MulticlassAccuracy, MulticlassConfusionMatrix

from fastvit.console import track
from fastvit.data.datasets import IGNORED
from fastvit.errors import UserError
from fastvit.evaluation.calibration import Bin, expected_calibration_error, reliability


@dataclass(frozen=True)
class Speed:
    """Images per second, without the first batch, which is a warm-up.

    Attributes:
        overall: images per second of the evaluation, with reading and decoding the images.
        model: images per second of the classifier alone.
    """

    overall: float
    model: float


@dataclass(frozen=True)
class Evaluation:
    """Evaluation of a classifier on labeled images. Images of the class IGNORED count only in `skipped`.

    Attributes:
        images: number of evaluated images.
        metrics: "top1" and, for more than five classes, "top5", as fractions; "loss", the mean cross entropy; "ece",
            the expected calibration error (ECE), as a fraction.
        confusion: (classes, classes) confusion matrix of counts; rows are true classes, columns predicted classes.
        targets: (N,) true class of each image, or IGNORED, in the order of the data.
        guesses: (N, k) most likely classes, the most likely first; k is 5, or the number of classes if that is smaller.
        probability: (N,) probability of the most likely class.
        speed: images per second; None if there was only one batch.
    """

    images: int
    metrics: dict[str, float]
    confusion: np.ndarray
    targets: np.ndarray
    guesses: np.ndarray
    probability: np.ndarray
    speed: Speed | None

    @property
    def predicted(self) -> np.ndarray:
        """Predicted class of each image, (N,)."""
        return np.asarray(self.guesses[:, 0])

    @property
    def skipped(self) -> int:
        """Number of images that were not evaluated."""
        return len(self.targets) - self.images

    @property
    def class_images(self) -> np.ndarray:
        """Number of evaluated images of each class, (classes,)."""
        return np.asarray(self.confusion.sum(1))

    @property
    def class_accuracy(self) -> np.ndarray:
        """Top-1 accuracy of each class, (classes,), a fraction; NaN for a class without images."""
        with np.errstate(invalid="ignore"):
            return np.asarray(np.diag(self.confusion) / self.class_images)

    @property
    def reliability(self) -> list[Bin]:
        """Bins of the reliability diagram, from which "ece" is computed."""
        return _reliability(self.targets, self.predicted, self.probability)


def evaluate(
    classify: Callable[[Tensor], Tensor],
    batches: Iterable[tuple[Tensor, Tensor]],
    num_classes: int,
    device: str | torch.device = "cpu",
    description: str = "evaluating",
) -> Evaluation:
    """Evaluate a classifier on batches, with a progress bar.

    Args:
        classify: function from (B, C, H, W) images on `device` (uint8 pixels with the loaders of fastvit) to
            (B, num_classes) logits; a model should be in eval mode.
        batches: pairs of images and class indices (B,); the index is IGNORED for images that do not count.
        num_classes: number of classes of the logits.
        device: device that the images are moved to.
        description: text of the progress bar.

    Raises:
        UserError: there are no images to evaluate.
    """
    # One process evaluates alone, even if it is one of several.
    metrics = accuracy(num_classes, sync_on_compute=False)
    confusion = MulticlassConfusionMatrix(num_classes, ignore_index=IGNORED, sync_on_compute=False)
    targets, guesses, probabilities, losses, times = [], [], [], [], []
    with torch.inference_mode():
        for images, labels in track(batches, description):
            start = time.perf_counter()
            logits = classify(images.to(device)).float().cpu()  # the copy waits for the device
            times.append((start, time.perf_counter()))
            metrics.update(logits, labels)
            confusion.update(logits, labels)
            guesses.append(logits.topk(min(5, num_classes)).indices)
            probabilities.append(logits.softmax(1).amax(1))
            losses.append(F.cross_entropy(logits, labels, ignore_index=IGNORED, reduction="sum"))
            targets.append(labels)
    counted = sum(int((labels != IGNORED).sum()) for labels in targets)
    if not counted:
        raise UserError("there are no images to evaluate")
    true, ranked, probability = (torch.cat(parts).numpy() for parts in (targets, guesses, probabilities))
    return Evaluation(
        images=counted,
        metrics={
            **{name: float(value) for name, value in metrics.compute().items()},
            "loss": float(torch.stack(losses).double().sum()) / counted,
            "ece": expected_calibration_error(_reliability(true, ranked[:, 0], probability)),
        },
        confusion=confusion.compute().numpy(),
        targets=true,
        guesses=ranked,
        probability=probability,
        speed=_speed([len(labels) for labels in targets], times),
    )


def accuracy(num_classes: int, **options: Any) -> torchmetrics.MetricCollection:
    """Return the metrics top-1 and, for more than five classes, top-5 accuracy, as fractions of all images.

    Args:
        num_classes: number of classes.
        options: options for torchmetrics' Metric.
    """
    ranks = {"top1": 1, "top5": 5} if num_classes > 5 else {"top1": 1}
    return torchmetrics.MetricCollection(
        {
            name: MulticlassAccuracy(num_classes, top_k=k, average="micro", ignore_index=IGNORED, **options)
            for name, k in ranks.items()
        }
    )


def _reliability(targets: np.ndarray, predicted: np.ndarray, probability: np.ndarray) -> list[Bin]:
    counted = targets != IGNORED
    return reliability(probability[counted], (predicted == targets)[counted])


def _speed(sizes: Sequence[int], times: Sequence[tuple[float, float]]) -> Speed | None:
    """Compute images per second.

    Args:
        sizes: number of images of each batch.
        times: start and end of the classifier's work on each batch, in seconds.
    """
    if len(sizes) < 2:
        return None
    images = sum(sizes[1:])
    return Speed(images / (times[-1][1] - times[0][1]), images / sum(end - start for start, end in times[1:]))
