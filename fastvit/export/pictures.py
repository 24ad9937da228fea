"""The pictures that an artifact and its model are compared on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from fastvit.data.datasets import ImageSource
from fastvit.data.images import find_images, read_image
from fastvit.data.load import open_images
from fastvit.data.subset import evenly_spaced
from fastvit.errors import UserError
from fastvit.model.task_model import TaskModel
from fastvit.runs.evaluation_data import EvaluationData
from fastvit.synthetic.scenes import make_scene
from fastvit.tasks.table import find_task

# Images to compare on, at most, of a task that has many outputs for each.
FEW = 8


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


def to_compare_on(model: TaskModel, data: EvaluationData, files: str | None, count: int) -> Pictures:
    """Pictures by a path, or validation images of a data source, evenly spread over it.

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
    return find_task(model.task).pictures(model, data, count)


def spread(images: ImageSource, name: str, count: int) -> Pictures:
    """A few of some images, evenly spread."""
    places = evenly_spaced(len(images), min(count, FEW, len(images)))
    return Pictures(f"{len(places)} images of {name}", [images.image(place) for place in places])


def scenes(count: int, side: int = 256) -> Pictures:
    """A few synthetic scenes, the same ones every time."""
    items = open_images("sample", "test")
    made = [make_scene(items, side, np.random.default_rng([0, index])) for index in range(min(count, FEW))]
    return Pictures(f"{len(made)} scenes of the sample", [Image.fromarray(scene.image) for scene in made])
