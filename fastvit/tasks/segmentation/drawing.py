"""Drawings of a segmenter's predictions."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torchvision.transforms.v2 import functional as F
from torchvision.utils import draw_segmentation_masks

from fastvit.console import one_line
from fastvit.tasks.colors import class_colors, enlarged, font
from fastvit.tasks.segmentation.prediction import SegmentationPrediction

# A class with a smaller share of the image is not in the legend.
_LEAST = 0.002
# The class that is not drawn.
_PLAIN = "background"


def draw(image: Image.Image, prediction: SegmentationPrediction) -> Image.Image:
    """Return the image overlaid with one color per class, and a legend with each class's share of the pixels below.

    The class "background" is not colored. A small image is enlarged by an integer factor to make its legend readable.
    """
    image, factor = enlarged(image)
    shares = [(label, share) for label, share in prediction.shares() if share >= _LEAST]
    palette = class_colors(len(prediction.classes) if prediction.classes else int(prediction.mask.max()) + 1)
    pixels = F.pil_to_tensor(image.convert("RGB"))
    if labels := [label for label, _ in prediction.shares() if prediction.name(label) != _PLAIN]:
        mask = prediction.mask.repeat(factor, 0).repeat(factor, 1)
        masks = torch.from_numpy(np.stack([mask == label for label in labels]))
        pixels = draw_segmentation_masks(pixels, masks, alpha=0.6, colors=[palette[label] for label in labels])
    entries = [
        (f"{one_line(prediction.name(label))} {share:.0%}", palette[label])
        for label, share in shares
        if prediction.name(label) != _PLAIN
    ]
    return _with_legend(F.to_pil_image(pixels), entries)


def _with_legend(image: Image.Image, entries: list[tuple[str, tuple[int, int, int]]]) -> Image.Image:
    """Return the image with rows of colored squares and class names below it."""
    size = max(image.width // 40, 10)
    letters = ImageFont.truetype(font(), size)
    line, gap = round(1.6 * size), round(0.5 * size)
    places, x, y = [], gap, gap
    for text, color in entries:
        width = size + gap + round(letters.getlength(text)) + 2 * gap
        if x > gap and x + width > image.width:
            x, y = gap, y + line
        places.append((x, y, text, color))
        x += width
    sheet = Image.new("RGB", (image.width, image.height + y + line), "white")
    sheet.paste(image)
    pen = ImageDraw.Draw(sheet)
    for x, y, text, color in places:
        top = image.height + y
        pen.rectangle((x, top, x + size, top + size), fill=color)
        pen.text((x + size + gap, top + size / 2), text, fill="black", font=letters, anchor="lm")
    return sheet
