"""The pictures that an artifact and its model are compared on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image

from fastvit.data.images import find_images, read_image
from fastvit.data.opening import open_images
from fastvit.errors import UserError
from fastvit.evaluation.robustness.views import spread
from fastvit.export.quantize.calibration import chosen
from fastvit.model.classifier import FastViT


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


def to_calibrate_on(model: FastViT, data: str, count: int) -> list[Image.Image]:
    """Training images of the data, drawn with a fixed seed, to measure the ranges of int8 on.

    Args:
        model: whose classes the data must have: ranges that are measured on other pictures are wrong.
        data: as in `fastvit.data.opening.open_images`.
        count: how many.

    Raises:
        UserError: there is no such data, or it is for other classes.
    """
    source = open_images(data, "train")
    if source.classes != model.classes:
        raise UserError(
            f"int8 is calibrated on training images of the model's own classes, {data} has others: give --data"
        )
    return [source.image(index) for index in chosen(len(source), count)]


def to_compare_on(model: FastViT, data: str, files: str | None, count: int) -> Pictures:
    """Pictures by a path, or held-out images of a data source, evenly spread over it.

    Args:
        model: whose classes the labels must have to count.
        data: as in `fastvit.data.opening.open_images`.
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
    source = spread(open_images(data, "test"), count)
    labels = list(source.labels) if source.classes == model.classes else None
    return Pictures(f"{len(source)} images of {data}", [source.image(i) for i in range(len(source))], labels)
