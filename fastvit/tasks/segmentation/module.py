"""Training of a segmenter: cross entropy of pixels, and metrics at the original size of the images."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from fastvit.errors import UserError
from fastvit.tasks.segmentation.folders import VOID
from fastvit.tasks.segmentation.inference import resized
from fastvit.tasks.segmentation.metrics import segmentation_metrics
from fastvit.tasks.segmentation.model import Segmenter
from fastvit.tasks.segmentation.options import SegmentationOptions
from fastvit.training.task import Configure, Task


class SegmentationTask(Task):
    """LightningModule of a segmenter.

    Training batches are (B, C, H, W) images and (B, H, W) masks; validation batches are lists of both, whose sizes
    differ.

    Args:
        model: segmenter to train.
        options: options of training, for the class weights; None for equal weights.
        configure: function that returns the optimizer and its schedule.

    Raises:
        UserError: the number of class weights differs from the number of classes.
    """

    model: Segmenter
    weights: Tensor | None

    def __init__(
        self, model: Segmenter, options: SegmentationOptions | None = None, configure: Configure | None = None
    ) -> None:
        super().__init__(model, segmentation_metrics(model.num_classes), configure)
        weights = options.class_weights if options else None
        if weights is not None and len(weights) != model.num_classes:
            raise UserError(f"segmentation.class_weights has {len(weights)} values for {model.num_classes} classes")
        self.register_buffer("weights", None if weights is None else torch.tensor(weights), persistent=False)

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the mean cross entropy over the pixels that are not ignored, with class weights; 0 without any."""
        targets = targets.long()
        total = F.cross_entropy(outputs.float(), targets, self.weights, ignore_index=VOID, reduction="sum")
        counted = targets != VOID
        norm = (
            counted.sum()
            if self.weights is None
            else self.weights[targets.clamp_max(len(self.weights) - 1)][counted].sum()
        )
        return total / norm.clamp_min(torch.finfo(total.dtype).tiny)

    def validate(self, images: Any, targets: Any) -> None:
        for image, target in zip(images, targets, strict=True):
            if not (target != VOID).any():
                continue
            logits = resized(self.model.outputs(image[None])[0], (target.shape[0], target.shape[1]))
            self.measure([logits[0].argmax(0)], [target.long()], self.loss(logits, target[None]))
