"""Drawings of a classifier's predictions."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure
from PIL import Image, ImageDraw, ImageFont

from fastvit.console import one_line
from fastvit.reports.figures import GREEN, RED, Gallery, Picture, new_figure
from fastvit.tasks.classification.prediction import ClassPrediction, Label
from fastvit.tasks.colors import font


def prediction_sheet(
    images: Sequence[Image.Image], guesses: Sequence[Label], true_names: Sequence[str] | None = None, columns: int = 8
) -> Figure:
    """Return a figure of images, each under its predicted class and probability.

    Args:
        images: RGB images.
        guesses: predicted class of each image.
        true_names: ground truth of each image; the title of a wrong prediction is red and includes it.
        columns: images per row.
    """
    rows = -(-len(images) // columns)
    figure = new_figure(1.5 * columns, 1.85 * rows)
    axes = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axis in axes:
        axis.axis("off")
    for i, (axis, image, guess) in enumerate(zip(axes, images, guesses, strict=False)):
        wrong = true_names is not None and true_names[i] != guess.name
        title = f"{guess.name} {guess.probability:.0%}" + (f"\ntrue: {true_names[i]}" if wrong and true_names else "\n")
        axis.imshow(image)
        axis.set_title(title, fontsize=8, color=RED if wrong else GREEN)
    return figure


def prediction_gallery(
    images: Sequence[Image.Image], guesses: Sequence[Label], true_names: Sequence[str], names: Sequence[str]
) -> Gallery:
    """Return the pictures of a page: images with prediction and ground truth.

    Args:
        images: RGB images.
        guesses: predicted class of each image.
        true_names: ground truth of each image.
        names: name of each image.
    """
    pictures = []
    for image, guess, true_name, name in zip(images, guesses, true_names, names, strict=True):
        wrong = guess.name != true_name
        predicted = f"{guess.name} {guess.probability:.0%}"
        alt = f"{Path(name).name}: predicted {predicted}, ground truth {true_name}."
        caption = (predicted, f"true: {true_name}") if wrong else (predicted,)
        pictures.append(Picture(image, alt, caption, wrong))
    return Gallery(pictures, columns=8, phone_columns=3, side=240)


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
