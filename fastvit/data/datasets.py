"""What a source of labeled images is, and the dataset that makes pixels of it."""

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
# The label of an image that no metric counts, as torch's cross entropy has it: no number of classes reaches it.
IGNORED = -100
# Unreadable images in a row after which no other one is looked for.
_PATIENCE = 100


class ImageSource(Protocol):
    """Images before any transform, which have names."""

    @property
    def classes(self) -> tuple[str, ...]: ...

    def __len__(self) -> int: ...

    def image(self, index: int) -> Image.Image: ...

    def name(self, index: int) -> str: ...


class LabeledImages(ImageSource, Protocol):
    """Labeled images before any transform: what a dataset reads from."""

    @property
    def labels(self) -> Sequence[int]: ...


class Samples(Dataset[Item], Generic[Item]):
    """Images with what is known of them, one at a time; what an item is, a task says in `item` and `padding_sample`.

    A SampleIndex is made with its own seed; PADDING is what no metric counts.

    Args:
        pictures: where images come from.
        unreadable_log: file that lists images that cannot be decoded (see `fastvit.data.unreadable`). For a
            SampleIndex, the next readable image replaces each of them. None raises an error for such an image.
        skip_unreadable: replace an image that is asked for by its index and cannot be decoded by a sample that no
            metric counts, with a warning.

    Raises:
        UnreadableImageError: an image cannot be decoded, and must be.
    """

    def __init__(
        self, pictures: ImageSource, unreadable_log: Path | None = None, skip_unreadable: bool = False
    ) -> None:
        self.pictures = pictures
        self.unreadable_log = unreadable_log
        self.skip_unreadable = skip_unreadable

    def item(self, index: int, varied: bool) -> Item:
        """The sample of an image, varied at random for training, or as it is for evaluation."""
        raise NotImplementedError(f"{type(self).__name__} does not say what its items are")

    def padding_sample(self) -> Item:
        """A sample that no metric counts."""
        raise NotImplementedError(f"{type(self).__name__} does not say what fills up a batch")

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, key: int | SampleIndex) -> Item:
        if isinstance(key, SampleIndex):
            with seeded(key.seed):
                return self._first_whole(key.image) if self.unreadable_log else self.item(key.image, varied=True)
        if key == PADDING:
            return self.padding_sample()
        try:
            return self.item(key, varied=False)
        except UnreadableImageError as error:
            if not self.skip_unreadable:
                raise
            warnings.warn(f"{error}; it does not count", stacklevel=2)
            return self.padding_sample()

    def _first_whole(self, first: int) -> Item:
        """The first image from there on that can be decoded."""
        assert self.unreadable_log
        for index in range(first, first + _PATIENCE):
            try:
                return self.item(index % len(self), varied=True)
            except UnreadableImageError as error:
                note(self.unreadable_log, self.pictures.name(index % len(self)), str(error))
                last = error
        raise UserError(f"{_PATIENCE} training images in a row cannot be decoded; the last of them: {last}")


class ImageDataset(Samples[tuple[Tensor, int]]):
    """Labeled images as (C, H, W) uint8 pixels with their class index; the class of what does not count is IGNORED.

    Args:
        pictures: where images and labels come from.
        pixels: image -> (C, H, W) uint8 of one size.
        others: as `Samples` has them.
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
        pictures: where images and labels come from.
        preprocessing: what the model expects.
        skip_unreadable: as `Samples` has it.
    """
    return ImageDataset(pictures, eval_pixels(preprocessing), skip_unreadable=skip_unreadable)
