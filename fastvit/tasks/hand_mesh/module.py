"""Training module of hand mesh regressors: L1 losses in space and in the image, and FreiHAND's metrics."""

from __future__ import annotations

from typing import Any

import torch
import torchmetrics
from torch import Tensor
from torch.nn import functional as F

from fastvit.tasks.hand_mesh.metrics import HandMetrics
from fastvit.tasks.hand_mesh.model import HandRegressor
from fastvit.tasks.hand_mesh.options import LossWeights
from fastvit.training.task import Configure, Task

Tensors = dict[str, Tensor]


class HandMeshTask(Task):
    """Training module for images (B, C, H, W) and the stacked targets of `fastvit.tasks.hand_mesh.data`."""

    model: HandRegressor

    def __init__(
        self, model: HandRegressor, weights: LossWeights | None = None, configure: Configure | None = None
    ) -> None:
        super().__init__(model, torchmetrics.MetricCollection({"hand": HandMetrics()}), configure)
        self.weights = weights or LossWeights()

    def losses(self, images: Tensor, targets: Tensors) -> Tensors:
        outputs = self.model(images, targets["left"] if self.model.side is not None else None)
        parts = hand_losses(outputs, targets)
        return {"loss": self._total(parts), **parts}

    def loss(self, outputs: Tensors, targets: Tensors) -> Tensor:
        return self._total(hand_losses(outputs, targets))

    def _total(self, parts: Tensors) -> Tensor:
        return torch.stack([getattr(self.weights, name) * value for name, value in parts.items()]).sum()

    def validate(self, images: Any, targets: Any) -> None:
        kept = targets["index"] >= 0  # the others are padding
        if kept.any():
            targets = {name: value[kept] for name, value in targets.items()}
            outputs = self(images[kept])
            self.measure(outputs, targets, self.loss(outputs, targets), len(targets["index"]))


def hand_losses(outputs: Tensors, targets: Tensors) -> Tensors:
    """Compute the unweighted parts of the loss, named like the fields of `LossWeights`.

    Args:
        outputs: tensors that `HandRegressor` returns.
        targets: stacked tensors of `fastvit.tasks.hand_mesh.transforms.transformed_targets`.
    """
    outputs = {name: value.float() for name, value in outputs.items()}
    camera = outputs["camera"][:, None]
    projected = camera[..., :1] * outputs["joints"][..., :2] + camera[..., 1:]
    parts = {
        "joints": F.l1_loss(outputs["joints"], targets["joints"]),
        "vertices": F.l1_loss(outputs["vertices"], targets["vertices"]),
        "projected": F.l1_loss(projected, targets["projected"]),
    }
    if "places" in outputs:
        parts["projected"] = (parts["projected"] + F.l1_loss(outputs["places"], targets["projected"])) / 2
    if "rotations" in outputs:
        known = targets["known"].float()
        for name in ("rotations", "shape"):
            errors = (outputs[name] - targets[name]).abs().flatten(1).mean(1)
            parts[name] = (errors * known).sum() / known.sum().clamp_min(1)
    if "side" in outputs:
        parts["side"] = F.binary_cross_entropy_with_logits(outputs["side"][:, 0], targets["left"].float())
    return parts
