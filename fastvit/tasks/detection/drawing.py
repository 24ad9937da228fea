"""Drawings of a detector's predictions."""

from __future__ import annotations

import torch
from PIL import Image
from torchvision.transforms.v2 import functional as F
from torchvision.utils import draw_bounding_boxes, draw_segmentation_masks

from fastvit.console import one_line
from fastvit.tasks.colors import class_colors, enlarged, font, ink
from fastvit.tasks.detection.prediction import DetectionPrediction


def draw(image: Image.Image, prediction: DetectionPrediction) -> Image.Image:
    """Return the image with the mask, box, class and score of each object, in one color per class.

    Annotations are drawn without scores. A small image is enlarged by an integer factor to make its labels readable.
    """
    found = prediction.objects
    image, factor = enlarged(image)
    pixels = F.pil_to_tensor(image.convert("RGB"))
    if len(found.scores):
        palette = class_colors(len(prediction.classes) if prediction.classes else int(found.labels.max()) + 1)
        colors = [palette[label] for label in found.labels]
        if found.masks is not None:
            masks = torch.from_numpy(found.masks.repeat(factor, 1).repeat(factor, 2))
            pixels = draw_segmentation_masks(pixels, masks, alpha=0.45, colors=colors)
        labels = [one_line(prediction.name(label)) for label in found.labels]
        if not prediction.annotated:
            labels = [f"{label} {score:.0%}" for label, score in zip(labels, found.scores, strict=True)]
        side = max(image.size)
        pixels = draw_bounding_boxes(
            pixels,
            torch.from_numpy(found.boxes * factor),
            labels,
            colors,
            width=max(side // 320, 1),
            font=font(),
            font_size=max(side // 40, 10),
            label_colors=[ink(color) for color in colors],
            label_background_colors=colors,
            fill_labels=True,
        )
    drawn: Image.Image = F.to_pil_image(pixels)
    return drawn
