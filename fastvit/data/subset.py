"""Some of the images of a source."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image

from fastvit.data.datasets import LabeledImages
from fastvit.errors import UserError


class Subset:
    """Some of the images of another source.

    Args:
        pictures: the source.
        indices: of the images there.
        labels: of these images, if not their own.
    """

    def __init__(self, pictures: LabeledImages, indices: Sequence[int], labels: Sequence[int] | None = None) -> None:
        self.pictures, self.indices = pictures, indices
        self.classes = pictures.classes
        self.labels = [pictures.labels[i] for i in indices] if labels is None else list(labels)

    def __len__(self) -> int:
        return len(self.indices)

    def image(self, index: int) -> Image.Image:
        return self.pictures.image(self.indices[index])

    def name(self, index: int) -> str:
        return self.pictures.name(self.indices[index])


def evenly_spaced(total: int, count: int) -> list[int]:
    """Return `count` indices below `total`, evenly spaced from 0 on; of more than there are, some come twice."""
    return [i * total // count for i in range(count)]


def limited(images: LabeledImages, count: int | None) -> LabeledImages:
    """Return `count` images, evenly spaced over the data, which are sorted by class; all of them by default.

    Raises:
        UserError: count is not a number of images.
    """
    if count is None or count >= len(images):
        return images
    if count < 1:
        raise UserError(f"limit must be at least 1 image, got {count}")
    return Subset(images, evenly_spaced(len(images), count))
