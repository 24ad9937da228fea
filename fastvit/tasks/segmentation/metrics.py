"""Metrics of a segmenter, all computed from one confusion matrix."""

from __future__ import annotations

from collections.abc import Iterable

import torch
import torchmetrics
from torch import Tensor
from torchmetrics.classification import MulticlassConfusionMatrix

from fastvit.tasks.segmentation.folders import VOID


def segmentation_metrics(num_classes: int) -> torchmetrics.MetricCollection:
    """Return the metrics over all pixels that are not ignored, as fractions; NaN if there are no such pixels.

    Call `update` with (outputs, targets): predicted classes (H, W) and masks (H, W) of any integer type, as a stack, or
    as lists of tensors, whose sizes may differ. `metrics["miou"].confmat` is the shared (K, K) confusion matrix: a row
    per true class, a column per predicted class.

    - "miou": mean intersection over union (IoU) of the classes that occur in masks or predictions.
    - "pixel_accuracy": share of the pixels that are predicted correctly.
    - "mean_accuracy": mean pixel accuracy of the classes that occur in masks.
    """
    kinds = {"miou": _MeanIoU, "pixel_accuracy": _PixelAccuracy, "mean_accuracy": _MeanAccuracy}
    metrics = {name: kind(num_classes, ignore_index=VOID, validate_args=False) for name, kind in kinds.items()}
    return torchmetrics.MetricCollection(metrics, compute_groups=[list(metrics)])


def per_class_iou(confusion: Tensor) -> Tensor:
    """Return the IoU of each class, (K,); NaN for a class that occurs neither in masks nor in predictions.

    Args:
        confusion: (K, K) confusion matrix; rows are true classes, columns are predicted classes.
    """
    right, confusion = confusion.diagonal().double(), confusion.double()
    return right / (confusion.sum(0) + confusion.sum(1) - right)


def per_class_accuracy(confusion: Tensor) -> Tensor:
    """Return the pixel accuracy of each class, (K,); NaN for a class that does not occur in masks.

    Args:
        confusion: (K, K) confusion matrix; rows are true classes, columns are predicted classes.
    """
    return confusion.diagonal().double() / confusion.sum(1)


class _Confusion(MulticlassConfusionMatrix):
    """torchmetrics' confusion matrix for images of different sizes."""

    higher_is_better = True

    def update(self, outputs: Iterable[Tensor], targets: Iterable[Tensor]) -> None:
        for output, target in zip(outputs, targets, strict=True):
            if output.shape != target.shape:
                raise ValueError(f"predictions have shape {tuple(output.shape)}, their mask {tuple(target.shape)}")
            self.confmat += _confusion(output, target, self.num_classes)


class _MeanIoU(_Confusion):
    def compute(self) -> Tensor:
        return per_class_iou(self.confmat).nanmean().float()


class _PixelAccuracy(_Confusion):
    def compute(self) -> Tensor:
        return (self.confmat.diagonal().sum().double() / self.confmat.sum()).float()


class _MeanAccuracy(_Confusion):
    def compute(self) -> Tensor:
        return per_class_accuracy(self.confmat).nanmean().float()


def _confusion(output: Tensor, target: Tensor, num_classes: int) -> Tensor:
    """Return the (K, K) confusion matrix of one image.

    With deterministic algorithms, and on devices other than CPU and CUDA, torchmetrics' own count needs a
    (pixels, K * K) table: 60 GB for one image and 150 classes. Sums of integers do not depend on the order.
    """
    counted = target != VOID
    pairs = target[counted].long() * num_classes + output[counted].long()
    where = pairs if pairs.device.type in ("cpu", "cuda") else pairs.cpu()
    counts = torch.bincount(where, minlength=num_classes**2)
    return counts.view(num_classes, num_classes).to(output.device)
