"""The pictures that an artifact and its model are compared on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from fastvit.data.datasets import Named, Split
from fastvit.data.images import find_images, read_image
from fastvit.data.opening import open_images
from fastvit.data.subset import evenly_spaced, limited
from fastvit.errors import UserError
from fastvit.export.quantize.calibration import chosen
from fastvit.model.task_model import TaskModel
from fastvit.runs.evaluation_data import EvaluationData
from fastvit.synthetic.scenes import make_scene
from fastvit.tasks.detection.coco import open_coco
from fastvit.tasks.hand_mesh.freihand import open_freihand
from fastvit.tasks.hand_mesh.hand_file import procedural_hand
from fastvit.tasks.hand_mesh.synthetic import HandMaker
from fastvit.tasks.segmentation.folders import open_masks

# Images of a task that is not classification to compare on, at most: each has many answers in it.
DENSE = 8
_OPEN: dict[str, Callable[[str, Split], Named]] = {
    "detection": open_coco,
    "segmentation": open_masks,
    "hand_mesh": open_freihand,
}


@dataclass(frozen=True)
class Pictures:
    """Real images.

    Attributes:
        name: where they are from, in words.
        images: RGB.
        labels: the model's class of each; None where it is not known.
    """

    name: str
    images: Sequence[Image.Image]
    labels: Sequence[int] | None = None


# Width over height of the shapes that detectors are compared on: what a canvas is filled up with is on another side.
SHAPES = (8 / 3, 1 / 2, 1 / 5)
# How many crops of each of them that the pictures themselves do not have.
CROPS = 2


def in_shapes(pictures: Sequence[Image.Image]) -> list[Image.Image]:
    """The pictures, and crops from the middle of some in the shapes that none of them has: wide, tall and narrow."""
    shapes = [picture.width / picture.height for picture in pictures]
    missing = [shape for shape in SHAPES if not any(0.8 < own / shape < 1.25 for own in shapes)]
    places = evenly_spaced(len(pictures), CROPS * len(missing))
    return [*pictures, *(_cut(pictures[place], shape) for place, shape in zip(places, missing * CROPS, strict=True))]


def _cut(picture: Image.Image, shape: float) -> Image.Image:
    width, height = (max(round(side), 1) for side in (picture.height * shape, picture.width / shape))
    width, height = min(width, picture.width), min(height, picture.height)
    left, top = (picture.width - width) // 2, (picture.height - height) // 2
    return picture.crop((left, top, left + width, top + height))


def to_calibrate_on(model: TaskModel, data: EvaluationData, count: int) -> list[Image.Image]:
    """Training images of the data, drawn with a fixed seed, to measure the ranges of int8 on.

    Args:
        model: whose classes the data must have: ranges that are measured on other pictures are wrong.
        data: whose training part they are of.
        count: how many.

    Raises:
        UserError: there is no such data, or it is for other classes.
    """
    if model.task != "classification":
        raise UserError(f"int8 is for classifiers, not for {model.task}: give --precision fp32 or fp16")
    source = data.images("train")
    if source.classes != model.classes:
        raise UserError(
            f"int8 is calibrated on training images of the model's own classes, {data.source} has others: give --data"
        )
    return [source.image(index) for index in chosen(len(source), count)]


def to_compare_on(model: TaskModel, data: EvaluationData, files: str | None, count: int) -> Pictures:
    """Pictures by a path, or held-out images of a data source, evenly spread over it.

    Args:
        model: whose classes the labels must have to count.
        data: whose validation part they are of.
        files: a file, folder or glob pattern, instead of the data.
        count: of the data's images.

    Raises:
        UserError: there are none.
    """
    if files:
        paths = find_images([files])
        return Pictures(f"{len(paths)} pictures of {files}", [read_image(path) for path in paths])
    if count < 1:
        raise UserError(f"images must be at least 1, got {count}")
    if model.task != "classification":
        return _dense_pictures(model.task, data.source, count)
    source = limited(data.images("test"), count)
    labels = list(source.labels) if source.classes == model.classes else None
    return Pictures(f"{len(source)} images of {data.source}", [source.image(i) for i in range(len(source))], labels)


def _dense_pictures(task: str, data: str, count: int) -> Pictures:
    if data == "sample" and task == "hand_mesh":
        maker = HandMaker(procedural_hand(), open_images("sample", "test"), 224)
        made = [maker.make(np.random.default_rng([0, index])).image for index in range(min(count, DENSE))]
        return Pictures(f"{len(made)} made hands", [Image.fromarray(one) for one in made])
    if data == "sample":
        side, items = 256, open_images("sample", "test")
        scenes = [make_scene(items, side, np.random.default_rng([0, index])) for index in range(min(count, DENSE))]
        return Pictures(f"{len(scenes)} scenes of the sample", [Image.fromarray(scene.image) for scene in scenes])
    source = _OPEN[task](data, "test")
    places = evenly_spaced(len(source), min(count, DENSE, len(source)))
    return Pictures(f"{len(places)} images of {data}", [source.image(place) for place in places])
