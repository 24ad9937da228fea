"""Predictions of a detector. Needs no torch."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastvit.data.classes import class_name
from fastvit.predict.prediction import Prediction
from fastvit.tasks.detection.decoding import Objects
from fastvit.tasks.detection.run_lengths import encode_masks


@dataclass(frozen=True)
class DetectionPrediction(Prediction):
    """Detected objects of one image.

    Attributes:
        image: name of the image.
        objects: detected objects, in pixels of the image.
        classes: class names; None if the model has none.
        annotated: True if the objects are annotations, which have no scores.
    """

    image: str
    objects: Objects
    classes: tuple[str, ...] | None
    annotated: bool = False

    def name(self, label: int) -> str:
        """Return the name of a class."""
        return class_name(label, self.classes)

    def record(self) -> dict[str, Any]:
        """Return "image" and "predictions", in the format of COCO's results, for JSON.

        A prediction has "category_id" (from 1, in the order of the model's classes), "category" (the class name),
        "bbox" (x, y, width, height in pixels), "score" and, from a detector with masks, "segmentation" (RLE).
        """
        found = self.objects
        masks = [None] * len(found.scores) if found.masks is None else encode_masks(found.masks)
        boxes = np.concatenate([found.boxes[:, :2], found.boxes[:, 2:] - found.boxes[:, :2]], 1)
        predictions = [
            {
                "category_id": int(label) + 1,
                "category": self.name(label),
                "bbox": [round(float(value), 2) for value in box],
                "score": round(float(score), 5),
                **({} if mask is None else {"segmentation": mask}),
            }
            for box, label, score, mask in zip(boxes, found.labels, found.scores, masks, strict=True)
        ]
        return {"image": self.image, "predictions": predictions}

    def summary(self) -> str:
        """Return the number of objects of each class on one line."""
        counts = Counter(self.name(label) for label in self.objects.labels)
        return ", ".join(f"{count} {name}" for name, count in counts.most_common()) or "no objects"
