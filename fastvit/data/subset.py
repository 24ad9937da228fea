"""Subsets of an image source."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image

from fastvit.data.datasets import LabeledImages
from fastvit.errors import UserError


class Subset:
    """Subset of the images of another source.

    Args:
        pictures: images of the source.
        indices: indices of the subset's images in the source.
        labels: class indices of the subset's images; None uses those of the source.
    """

    def __init__(self, pictures: LabeledImages, indices: Sequence[int], labels: Sequence[int] | None = None) -> None:
        self.pictures, self.indices = pictures, indices
        self.classes = pictures.classes
        self.labels = [pictures.labels[i] for i in indices] if labels is None else list(labels)

    def __len__(self) -> int:
        return len(self.indices)

    def image(self, index: int) -> Image.Image:
        """Decode an image as RGB."""
        return self.pictures.image(self.indices[index])

    def name(self, index: int) -> str:
        """Return the name of an image."""
        return self.pictures.name(self.indices[index])


def evenly_spaced(total: int, count: int) -> list[int]:
    """Return `count` indices below `total`, evenly spaced from 0 on; some are repeated if `count` exceeds `total`."""
    return [i * total // count for i in range(count)]


def limited(images: LabeledImages, count: int | None) -> LabeledImages:
    """Return `count` images, evenly spaced over the data, which are sorted by class; None returns all images.

    Raises:
        UserError: count is below 1.
    """
    if count is None or count >= len(images):
        return images
    if count < 1:
        raise UserError(f"limit must be at least 1, got {count}")
    return Subset(images, evenly_spaced(len(images), count))
