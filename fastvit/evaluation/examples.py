"""Validation images with ground truth and prediction drawn into them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from fastvit.data.datasets import ImageSource
from fastvit.data.subset import evenly_spaced
from fastvit.errors import UnreadableImageError
from fastvit.predict.predictor import Predictor
from fastvit.reports.figures import Gallery, Picture
from fastvit.reports.page import Section
from fastvit.tasks.spec import TaskSpec

_COUNT = 6
# Score threshold: objects with a lower score are not drawn.
_DRAWN = 0.3


@dataclass(frozen=True)
class Example:
    """An image with its ground truth and with the prediction, each drawn into it.

    Attributes:
        name: name of the image.
        ground_truth: the image with its annotation.
        prediction: the image with the prediction.
        ground_truth_summary: the annotation on one line.
        prediction_summary: the prediction on one line.
    """

    name: str
    ground_truth: Image.Image
    prediction: Image.Image
    ground_truth_summary: str
    prediction_summary: str


def examples(predictor: Predictor, images: ImageSource) -> list[Example]:
    """Return up to six readable images, evenly spread; none for a task that draws no ground truth."""
    spec, found = predictor.spec, []
    for index in evenly_spaced(len(images), min(len(images), _COUNT)):
        try:
            picture = images.image(index)
            ground_truth = spec.ground_truth(images, index, predictor.network)
        except UnreadableImageError:
            continue  # the evaluation has warned about it
        if ground_truth is None:
            return []
        (prediction,) = predictor([picture], score=_DRAWN)
        found.append(
            Example(
                images.name(index),
                spec.draw(picture, ground_truth),
                spec.draw(picture, prediction),
                ground_truth.summary(),
                prediction.summary(),
            )
        )
    return found


def examples_section(found: Sequence[Example], spec: TaskSpec) -> Section:
    """Return pairs of pictures: ground truth and prediction."""
    scores = f" Objects with a score of {_DRAWN:.0%} or more are drawn." if spec.scored else ""
    pictures = []
    for example in found:
        name = Path(example.name).name
        for kind, image, summary in (
            ("Ground truth", example.ground_truth, example.ground_truth_summary),
            ("Prediction", example.prediction, example.prediction_summary),
        ):
            pictures.append(Picture(image, f"{kind} for {name}: {summary}.", (f"{kind}: {name}",)))
    text = f"Validation images with the ground truth and the prediction.{scores}"
    return Section("Examples", text, gallery=Gallery(pictures, columns=2, phone_columns=1, side=960))
