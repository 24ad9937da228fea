"""Validation images with ground truth and predictions, for tasks whose predictions are drawn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from fastvit.data.datasets import ImageSource
from fastvit.data.subset import evenly_spaced
from fastvit.errors import UnreadableImageError
from fastvit.predict.predictor import Predictor
from fastvit.reports.figures import new_figure
from fastvit.reports.page import Section
from fastvit.tasks.spec import TaskSpec

_COUNT = 6
# Score threshold: objects with a lower score are not drawn.
_DRAWN = 0.3


@dataclass(frozen=True)
class Example:
    """Image with the ground truth drawn into it, and with the prediction.

    Attributes:
        name: name of the image.
        ground_truth: image with the annotations.
        prediction: image with the predictions.
    """

    name: str
    ground_truth: Image.Image
    prediction: Image.Image


def examples(predictor: Predictor, images: ImageSource) -> list[Example]:
    """Return examples of readable images, evenly spaced; none for tasks whose ground truth is not drawn.

    Args:
        predictor: network that predicts.
        images: images with ground truth.
    """
    spec, made = predictor.spec, []
    for place in evenly_spaced(len(images), min(len(images), _COUNT)):
        try:
            picture = images.image(place)
            ground_truth = spec.ground_truth(images, place, predictor.network)
        except UnreadableImageError:
            continue  # the evaluation has warned about it
        if ground_truth is None:
            return []
        (prediction,) = predictor([picture], score=_DRAWN)
        made.append(Example(images.name(place), spec.draw(picture, ground_truth), spec.draw(picture, prediction)))
    return made


def examples_section(made: Sequence[Example], spec: TaskSpec) -> Section:
    """Return the section of a report with the examples, two per row.

    Args:
        made: examples.
        spec: task of the examples.
    """
    scores = f"; from a score of {_DRAWN:.0%} on" if spec.scored else ""
    text = f"Validation images: left the annotation, right the prediction{scores}."
    rows = -(-len(made) // 2)
    figure = new_figure(12, 3.2 * rows)
    places = figure.subplots(rows, 4, squeeze=False)
    for place in places.flat:
        place.axis("off")
    for index, example in enumerate(made):
        row, column = divmod(index, 2)
        for offset, picture in enumerate((example.ground_truth, example.prediction)):
            places[row, 2 * column + offset].imshow(picture)
        places[row, 2 * column].set_title(Path(example.name).name, fontsize=8, loc="left")
    return Section("Examples", text, figure, pixels=True)
