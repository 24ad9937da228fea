"""What a source of labelled images is, and the dataset that makes pixels of it."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, Protocol

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from fastvit.data.damaged import note
from fastvit.data.sampling import PADDING, Draw, seeded
from fastvit.data.transforms import Transform
from fastvit.errors import DamagedImageError, UserError

Split = Literal["train", "test"]
# The class of what is not to be counted, as torch's cross entropy has it.
IGNORED = -100
# Damaged images in a row after which no other one is looked for.
_PATIENCE = 100


class LabelledImages(Protocol):
    """Labelled images before any transform: what a dataset reads from."""

    @property
    def classes(self) -> tuple[str, ...]: ...

    @property
    def labels(self) -> Sequence[int]: ...

    def __len__(self) -> int: ...

    def image(self, index: int) -> Image.Image: ...

    def name(self, index: int) -> str: ...


class ImageDataset(Dataset[tuple[Tensor, int]]):
    """Images as (C, H, W) uint8 pixels with their class index.

    A Draw is transformed with its own seed; PADDING is a black image of the class IGNORED, which no metric counts.

    Args:
        pictures: where images and labels come from.
        pixels: image -> (C, H, W) uint8 of one size.
        damage_log: file to note images in that cannot be decoded (see `fastvit.data.damaged`); for a Draw, the next
            image that can be takes their place. None makes such an image an error.
        allow_damaged: for an image that is asked for by its index, give a black one of the class IGNORED, with a
            warning, if it cannot be decoded.

    Raises:
        DamagedImageError: an image cannot be decoded, and must be.
    """

    def __init__(
        self,
        pictures: LabelledImages,
        pixels: Transform,
        damage_log: Path | None = None,
        allow_damaged: bool = False,
    ) -> None:
        self.pictures = pictures
        self.pixels = pixels
        self.damage_log = damage_log
        self.allow_damaged = allow_damaged

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, key: int | Draw) -> tuple[Tensor, int]:
        if isinstance(key, Draw):
            with seeded(key.seed):
                return self._first_whole(key.image) if self.damage_log else self._item(key.image)
        if key == PADDING:
            return self._uncounted()
        try:
            return self._item(key)
        except DamagedImageError as error:
            if not self.allow_damaged:
                raise
            warnings.warn(f"{error}; it does not count", stacklevel=2)
            return self._uncounted()

    def _item(self, index: int) -> tuple[Tensor, int]:
        return self.pixels(self.pictures.image(index)), self.pictures.labels[index]

    def _first_whole(self, first: int) -> tuple[Tensor, int]:
        """The first image from there on that can be decoded."""
        assert self.damage_log
        for index in range(first, first + _PATIENCE):
            try:
                return self._item(index % len(self))
            except DamagedImageError as error:
                note(self.damage_log, self.pictures.name(index % len(self)), str(error))
                last = error
        raise UserError(f"{_PATIENCE} training images in a row cannot be decoded; the last of them: {last}")

    def _uncounted(self) -> tuple[Tensor, int]:
        return torch.zeros_like(self.pixels(Image.new("RGB", (1, 1)))), IGNORED
