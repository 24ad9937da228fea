"""What is measured of a segmenter, all from one confusion matrix."""

from __future__ import annotations

from collections.abc import Iterable

import torch
import torchmetrics
from torch import Tensor
from torchmetrics.classification import MulticlassConfusionMatrix

from fastvit.tasks.segmentation.folders import VOID


def segmentation_metrics(num_classes: int) -> torchmetrics.MetricCollection:
    """Metrics over all pixels that count, as fractions; NaN before there is one.

    Updated with (outputs, targets): predicted classes (H, W) and masks (H, W) of any integer type, as lists of tensors,
    whose sizes may differ, or stacked. `metrics["miou"].confmat` is the (K, K) confusion matrix that all share: a row
    for each true class, a column for each predicted one.

    - "miou": mean intersection over union of the classes that occur in masks or predictions.
    - "pixel_accuracy": share of the pixels that are right.
    - "mean_accuracy": mean share of the pixels of each class that are right, over the classes that occur in masks.
    """
    kinds = {"miou": _MeanIoU, "pixel_accuracy": _PixelAccuracy, "mean_accuracy": _MeanAccuracy}
    metrics = {name: kind(num_classes, ignore_index=VOID, validate_args=False) for name, kind in kinds.items()}
    return torchmetrics.MetricCollection(metrics, compute_groups=[list(metrics)])


def per_class_iou(confusion: Tensor) -> Tensor:
    """(K,) intersection over union of each class; NaN where it occurs neither in masks nor in predictions.

    Args:
        confusion: (K, K) counts; rows are true classes, columns predicted ones.
    """
    right, confusion = confusion.diagonal().double(), confusion.double()
    return right / (confusion.sum(0) + confusion.sum(1) - right)


def per_class_accuracy(confusion: Tensor) -> Tensor:
    """(K,) share of each class's pixels that are right; NaN where it occurs in no mask. Args as of `per_class_iou`."""
    return confusion.diagonal().double() / confusion.sum(1)


class _Confusion(MulticlassConfusionMatrix):
    """torchmetrics' confusion matrix for images of different sizes."""

    higher_is_better = True

    def update(self, outputs: Iterable[Tensor], targets: Iterable[Tensor]) -> None:
        for output, target in zip(outputs, targets, strict=True):
            if output.shape != target.shape:
                raise ValueError(f"classes have shape {tuple(output.shape)}, their mask {tuple(target.shape)}")
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
    """(K, K) counts of one image.

    torchmetrics' own count makes a (pixels, K * K) table where algorithms are to be deterministic, and on devices that
    are neither CPU nor CUDA: 60 GB for one image and 150 classes. Whole numbers add up to the same in any order.
    """
    counted = target != VOID
    pairs = target[counted].long() * num_classes + output[counted].long()
    where = pairs if pairs.device.type in ("cpu", "cuda") else pairs.cpu()
    counts = torch.bincount(where, minlength=num_classes**2)
    return counts.view(num_classes, num_classes).to(output.device)
