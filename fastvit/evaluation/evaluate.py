"""Accuracy of anything that turns images into logits."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import torch
from rich.console import Console
from rich.progress import track
from torch import Tensor
from torch.nn import functional as F
from torchmetrics.classification import MulticlassConfusionMatrix

from fastvit.tasks.classification.module import accuracy


@dataclass(frozen=True)
class Evaluation:
    """Of a classifier on labelled images.

    Attributes:
        images: how many there were.
        metrics: "top1" and, for more than five classes, "top5", as fractions; "loss", the mean cross entropy.
        confusion: (classes, classes) counts; rows are true classes, columns predicted ones.
        targets: (images,) true class of each image, in the order of the data.
        predicted: (images,) predicted class.
        probability: (images,) probability of the predicted class.
    """

    images: int
    metrics: dict[str, float]
    confusion: np.ndarray
    targets: np.ndarray
    predicted: np.ndarray
    probability: np.ndarray


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
        batches: pairs of images and class indices (B,).
        num_classes: of the logits.
        device: where the images go.
        description: beside the progress bar.
    """
    metrics = accuracy(num_classes)
    confusion = MulticlassConfusionMatrix(num_classes)
    targets, predicted, probabilities, losses = [], [], [], []
    with torch.inference_mode():
        for images, labels in track(batches, description, console=Console(stderr=True), transient=True):
            logits = classify(images.to(device)).float().cpu()
            metrics.update(logits, labels)
            confusion.update(logits, labels)
            probability, guess = logits.softmax(1).max(1)
            targets.append(labels)
            predicted.append(guess)
            probabilities.append(probability)
            losses.append(F.cross_entropy(logits, labels, reduction="none"))
    return Evaluation(
        images=sum(len(t) for t in targets),
        metrics={k: float(v) for k, v in metrics.compute().items()} | {"loss": float(torch.cat(losses).mean())},
        confusion=confusion.compute().numpy(),
        targets=torch.cat(targets).numpy(),
        predicted=torch.cat(predicted).numpy(),
        probability=torch.cat(probabilities).numpy(),
    )
