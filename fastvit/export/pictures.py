"""Images on which an artifact and its model are compared."""

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

# Largest number of images to compare for tasks with many outputs per image.
FEW = 8


@dataclass(frozen=True)
class Pictures:
    """Real images.

    Attributes:
        name: source of the images, for reports.
        images: RGB images.
        labels: class index of each image; None if not known.
    """

    name: str
    images: Sequence[Image.Image]
    labels: Sequence[int] | None = None


def to_compare_on(model: TaskModel, data: EvaluationData, files: str | None, count: int) -> Pictures:
    """Return images from a path, or validation images of a data source, evenly spread over it.

    Args:
        model: model whose classes the labels must have, if they are used.
        data: data whose validation images are used.
        files: file, folder or glob pattern to use instead of the data.
        count: number of validation images.

    Raises:
        UserError: no image is found, or count is below 1.
    """
    if files:
        paths = find_images([files])
        return Pictures(f"{len(paths)} images of {files}", [read_image(path) for path in paths])
    if count < 1:
        raise UserError(f"images must be at least 1, got {count}")
    return find_task(model.task).pictures(model, data, count)


def spread(images: ImageSource, name: str, count: int) -> Pictures:
    """Return at most `FEW` images, evenly spread over a source.

    Args:
        images: source of images.
        name: name of the source, for reports.
        count: number of images wanted.
    """
    indices = evenly_spaced(len(images), min(count, FEW, len(images)))
    return Pictures(f"{len(indices)} images of {name}", [images.image(index) for index in indices])


def scenes(count: int, side: int = 256) -> Pictures:
    """Return a few synthetic scenes of side x side pixels, always the same."""
    items = open_images("sample", "test")
    made = [make_scene(items, side, np.random.default_rng([0, index])) for index in range(min(count, FEW))]
    return Pictures(f"{len(made)} synthetic scenes", [Image.fromarray(scene.image) for scene in made])
