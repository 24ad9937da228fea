"""Protocols of image sources, and datasets that turn their images into samples."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Generic, Protocol, TypeVar

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from fastvit.data.sampling import PADDING, SampleIndex, seeded
from fastvit.data.transforms import Transform, eval_pixels
from fastvit.data.unreadable import note
from fastvit.errors import UnreadableImageError, UserError
from fastvit.model.preprocessing import Preprocessing

Item = TypeVar("Item")
# The label of an image that no metric counts; torch's cross entropy ignores it by default.
IGNORED = -100
# Unreadable images in a row after which the search for a readable one stops.
_PATIENCE = 100


class ImageSource(Protocol):
    """Source of named images, before any transform."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names, in the order of the labels."""

    def __len__(self) -> int: ...

    def image(self, index: int) -> Image.Image:
        """Decode an image as RGB."""

    def name(self, index: int) -> str:
        """Return the name of an image, usually its path."""


class LabeledImages(ImageSource, Protocol):
    """Source of labeled images, before any transform."""

    @property
    def labels(self) -> Sequence[int]:
        """Class index of each image."""


class Samples(Dataset[Item], Generic[Item]):
    """Dataset of images with their targets; a subclass for each task defines `item` and `padding_sample`.

    A key is an index (evaluation), a SampleIndex (training: augmented with its own seed), or PADDING.

    Args:
        pictures: source of the images.
        unreadable_log: file that lists unreadable training images (see `fastvit.data.unreadable`); the next readable
            image replaces each of them. None raises an error for such an image.
        skip_unreadable: replace an unreadable evaluation image by a sample that no metric counts, with a warning.

    Raises:
        UnreadableImageError: an image cannot be decoded, and may not be replaced.
    """

    def __init__(
        self, pictures: ImageSource, unreadable_log: Path | None = None, skip_unreadable: bool = False
    ) -> None:
        self.pictures = pictures
        self.unreadable_log = unreadable_log
        self.skip_unreadable = skip_unreadable

    def item(self, index: int, varied: bool) -> Item:
        """Return the sample of an image, augmented at random for training (`varied`) or prepared for evaluation."""
        raise NotImplementedError(f"{type(self).__name__} must define item")

    def padding_sample(self) -> Item:
        """Return a sample that no metric counts."""
        raise NotImplementedError(f"{type(self).__name__} must define padding_sample")

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, key: int | SampleIndex) -> Item:
        if isinstance(key, SampleIndex):
            with seeded(key.seed):
                return self._first_readable(key.image) if self.unreadable_log else self.item(key.image, varied=True)
        if key == PADDING:
            return self.padding_sample()
        try:
            return self.item(key, varied=False)
        except UnreadableImageError as error:
            if not self.skip_unreadable:
                advice = (
                    "remove or repair it, or skip unreadable images with --skip-unreadable (fastvit train and eval)"
                )
                raise UnreadableImageError(f"{error}: {advice}") from error
            warnings.warn(f"{error}; it is skipped", stacklevel=2)
            return self.padding_sample()

    def _first_readable(self, first: int) -> Item:
        """Return the sample of the first readable image from this index on."""
        assert self.unreadable_log
        for index in range(first, first + _PATIENCE):
            try:
                return self.item(index % len(self), varied=True)
            except UnreadableImageError as error:
                note(self.unreadable_log, self.pictures.name(index % len(self)), str(error))
                last = error
        raise UserError(f"{_PATIENCE} training images in a row are unreadable; the last error: {last}")


class ImageDataset(Samples[tuple[Tensor, int]]):
    """Labeled images as (C, H, W) uint8 pixels with their class index; IGNORED is the class of padding samples.

    Args:
        pictures: source of the images and labels.
        pixels: transform from an image to (C, H, W) uint8 pixels of one size.
        unreadable_log: see `Samples`.
        skip_unreadable: see `Samples`.
    """

    pictures: LabeledImages

    def __init__(
        self,
        pictures: LabeledImages,
        pixels: Transform,
        unreadable_log: Path | None = None,
        skip_unreadable: bool = False,
    ) -> None:
        super().__init__(pictures, unreadable_log, skip_unreadable)
        self.pixels = pixels

    def item(self, index: int, varied: bool) -> tuple[Tensor, int]:
        return self.pixels(self.pictures.image(index)), self.pictures.labels[index]

    def padding_sample(self) -> tuple[Tensor, int]:
        return torch.zeros_like(self.pixels(Image.new("RGB", (1, 1)))), IGNORED


def samples_for_evaluation(
    pictures: LabeledImages, preprocessing: Preprocessing, skip_unreadable: bool = False
) -> ImageDataset:
    """Return labeled images as samples of uint8 pixels, resized as a model's evaluation does it.

    Args:
        pictures: source of the images and labels.
        preprocessing: preprocessing of the model.
        skip_unreadable: see `Samples`.
    """
    return ImageDataset(pictures, eval_pixels(preprocessing), skip_unreadable=skip_unreadable)
