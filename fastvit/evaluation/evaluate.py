"""Accuracy of anything that turns images into logits."""

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
    """Images a second; the first batch, which warms up, is left out.

    Attributes:
        overall: of the evaluation, with reading and decoding the images.
        model: of the classifier alone.
    """

    overall: float
    model: float


@dataclass(frozen=True)
class Evaluation:
    """Of a classifier on labeled images. Images of the class IGNORED are in no number but `skipped`.

    Attributes:
        images: how many were counted.
        metrics: "top1" and, for more than five classes, "top5", as fractions; "loss", the mean cross entropy; "ece",
            the expected calibration error, as a fraction.
        confusion: (classes, classes) counts; rows are true classes, columns predicted ones.
        targets: (N,) true class of each image, or IGNORED, in the order of the data.
        guesses: (N, k) the likeliest classes, the likeliest first; k is 5 where there are that many classes.
        probability: (N,) probability of the likeliest class.
        speed: None where there was but one batch.
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
        """(N,) predicted class."""
        return np.asarray(self.guesses[:, 0])

    @property
    def skipped(self) -> int:
        """How many images were not counted."""
        return len(self.targets) - self.images

    @property
    def class_images(self) -> np.ndarray:
        """(classes,) how many images of each class were counted."""
        return np.asarray(self.confusion.sum(1))

    @property
    def class_accuracy(self) -> np.ndarray:
        """(classes,) top-1 accuracy of each class, 0 to 1; NaN for a class without images."""
        with np.errstate(invalid="ignore"):
            return np.asarray(np.diag(self.confusion) / self.class_images)

    @property
    def reliability(self) -> list[Bin]:
        """What "ece" is made of."""
        return _reliability(self.targets, self.predicted, self.probability)


def evaluate(
    classify: Callable[[Tensor], Tensor],
    batches: Iterable[tuple[Tensor, Tensor]],
    num_classes: int,
    device: str | torch.device = "cpu",
    description: str = "evaluating",
) -> Evaluation:
    """Run a classifier over batches, with a progress bar.

    Args:
        classify: (B, C, H, W) images on `device`, as the batches have them (our loaders yield uint8 pixels) ->
            (B, num_classes) logits; a model should be in eval mode.
        batches: pairs of images and class indices (B,), IGNORED for an image that is not to be counted.
        num_classes: of the logits.
        device: where the images go.
        description: beside the progress bar.

    Raises:
        UserError: there is no image to count.
    """
    # This process does it alone, also where it is one of several.
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
        raise UserError("there is no image to evaluate on")
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
    """Top-1 and, where there are more than five classes, top-5, as fractions over all images that count.

    Args:
        num_classes: how many classes there are.
        options: of torchmetrics' Metric.
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
    """From each batch's number of images, and the start and end of the classifier's work on it in seconds."""
    if len(sizes) < 2:
        return None
    images = sum(sizes[1:])
    return Speed(images / (times[-1][1] - times[0][1]), images / sum(end - start for start, end in times[1:]))
