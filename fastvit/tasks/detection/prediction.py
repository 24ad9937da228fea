"""What a detector says of an image. Needs no torch."""

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
    """For one image: its name, and what was found in it.

    Attributes:
        image: its name.
        objects: in its pixels.
        classes: names, or None where the model has none.
        annotated: whether the objects are annotations, which have no scores.
    """

    image: str
    objects: Objects
    classes: tuple[str, ...] | None
    annotated: bool = False

    def name(self, label: int) -> str:
        """Of a class."""
        return class_name(label, self.classes)

    def record(self) -> dict[str, Any]:
        """For JSON: "image", and "predictions" as COCO's results have them.

        Each has "category_id" (classes count from 1, in the model's order), "category" (its name), "bbox" (x, y, width,
        height in pixels), "score" and, of a detector with masks, "segmentation" (run lengths).
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
        """On a line: how many of what."""
        counts = Counter(self.name(label) for label in self.objects.labels)
        return ", ".join(f"{count} {name}" for name, count in counts.most_common()) or "nothing"
