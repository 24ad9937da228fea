"""Training of a detector: the losses of the network, and COCO's metrics in pixels of the original images."""

from __future__ import annotations

from typing import Any

import torch
import torchmetrics
from torch import Tensor

from fastvit.tasks.detection.decoding import to_objects
from fastvit.tasks.detection.metrics import CocoMetrics
from fastvit.tasks.detection.model import Detections, Detector
from fastvit.training.task import Configure, Task


class DetectionTask(Task):
    """LightningModule of a detector, for lists of (C, H, W) images and targets of `fastvit.tasks.detection.data`.

    Args:
        model: detector to train.
        configure: function that returns the optimizer and its schedule.
    """

    model: Detector
    validates_loss = False  # in eval mode the network outputs detections and no losses

    def __init__(self, model: Detector, configure: Configure | None = None) -> None:
        coco = CocoMetrics(model.num_classes, model.options.masks)
        super().__init__(model, torchmetrics.MetricCollection({"coco": coco}), configure)

    def losses(self, images: list[Tensor], targets: Any) -> dict[str, Tensor]:
        parts = self.model(images, targets)
        assert isinstance(parts, dict)
        return {"loss": torch.stack(list(parts.values())).sum(), **parts}

    def validate(self, images: list[Tensor], targets: Any) -> None:
        counted = [i for i, target in enumerate(targets) if target["image_id"] >= 0]
        if counted:
            found = self.model([images[i] for i in counted])
            chosen = [targets[i] for i in counted]
            fitted = [(images[i].shape[-2], images[i].shape[-1]) for i in counted]
            self.measure([in_image(*item) for item in zip(found, fitted, chosen, strict=True)], chosen)


def in_image(found: Detections, fitted: tuple[int, int], target: dict[str, Tensor]) -> Detections:
    """Return detections in pixels of the original image, with masks of its size.

    Args:
        found: detections in pixels of the resized image.
        fitted: height and width of the resized image, in pixels.
        target: target of the image; its "size" is the height and width of the original image.
    """
    height, width = target["size"].tolist()
    objects = to_objects({name: value.float().cpu().numpy() for name, value in found.items()}, fitted, (height, width))
    arrays = {"boxes": objects.boxes, "labels": objects.labels, "scores": objects.scores, "masks": objects.masks}
    return {name: torch.from_numpy(array) for name, array in arrays.items() if array is not None}
