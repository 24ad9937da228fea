"""Drawings of a classifier's predictions."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.figure import Figure
from PIL import Image, ImageDraw, ImageFont

from fastvit.console import one_line
from fastvit.reports.figures import new_figure
from fastvit.tasks.classification.prediction import ClassPrediction, Label
from fastvit.tasks.colors import font


def prediction_sheet(
    images: Sequence[Image.Image], guesses: Sequence[Label], true_names: Sequence[str] | None = None, columns: int = 8
) -> Figure:
    """Return a figure of images, each under its predicted class and probability.

    Args:
        images: RGB images.
        guesses: predicted class of each image.
        true_names: true class of each image; the title of a wrong prediction is red and includes it.
        columns: images per row.
    """
    rows = -(-len(images) // columns)
    figure = new_figure(1.5 * columns, 1.85 * rows)
    axes = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axis in axes:
        axis.axis("off")
    for i, (axis, image, guess) in enumerate(zip(axes, images, guesses, strict=False)):
        wrong = true_names is not None and true_names[i] != guess.name
        title = f"{guess.name} {guess.probability:.0%}" + (f"\nis {true_names[i]}" if wrong and true_names else "\n")
        axis.imshow(image)
        axis.set_title(title, fontsize=8, color="#b91c1c" if wrong else "#15803d")
    return figure


def draw(image: Image.Image, prediction: ClassPrediction) -> Image.Image:
    """Return the image with its most likely classes listed below it, one per line."""
    size = max(image.width // 24, 10)
    letters = ImageFont.truetype(font(), size)
    line = round(1.5 * size)
    lines = [f"{one_line(label.name)} {label.probability:.1%}" for label in prediction.labels]
    sheet = Image.new("RGB", (image.width, image.height + line * len(lines) + size // 2), "white")
    sheet.paste(image)
    pen = ImageDraw.Draw(sheet)
    for index, text in enumerate(lines):
        pen.text((size // 2, image.height + line * (index + 0.5)), text, fill="black", font=letters, anchor="lm")
    return sheet
