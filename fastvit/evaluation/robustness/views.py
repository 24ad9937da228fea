"""Labeled images seen another way: cropped, corrupted, or several sets as one."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate

import numpy as np
from PIL import Image

from fastvit.data.datasets import LabeledImages
from fastvit.data.transforms import eval_pixels
from fastvit.evaluation.robustness.corruptions import Corruption, generator
from fastvit.model.preprocessing import Preprocessing


class Cropped:
    """Images at the size that a model takes, resized and cropped for it."""

    def __init__(self, images: LabeledImages, preprocessing: Preprocessing) -> None:
        self._images, self._pixels = images, eval_pixels(preprocessing)
        self.classes, self.labels = images.classes, images.labels

    def __len__(self) -> int:
        return len(self._images)

    def image(self, index: int) -> Image.Image:
        return Image.fromarray(np.asarray(self._pixels(self._images.image(index))).transpose(1, 2, 0))

    def name(self, index: int) -> str:
        return self._images.name(index)


class Corrupted:
    """Corrupted images.

    Args:
        images: clean ones, at the size at which they are to be corrupted.
        corruption: how.
        severity: 1 to 5.
        seed: of chance; each image has its own, by its index.
    """

    def __init__(self, images: LabeledImages, corruption: Corruption, severity: int, seed: int) -> None:
        self._images, self._corruption, self._severity, self._seed = images, corruption, severity, seed
        self.classes, self.labels = images.classes, images.labels

    def __len__(self) -> int:
        return len(self._images)

    def image(self, index: int) -> Image.Image:
        chance = generator(self._seed, self._corruption.name, self._severity, index)
        return Image.fromarray(self._corruption(np.asarray(self._images.image(index)), self._severity, chance))

    def name(self, index: int) -> str:
        return self._images.name(index)


class Joined:
    """Several sets of images with the same classes, one after the other."""

    def __init__(self, parts: Sequence[LabeledImages]) -> None:
        self._parts = parts
        self._ends = list(accumulate(map(len, parts)))
        self.classes = parts[0].classes
        self.labels = [label for part in parts for label in part.labels]

    def __len__(self) -> int:
        return self._ends[-1]

    def image(self, index: int) -> Image.Image:
        part, place = self._place(index)
        return part.image(place)

    def name(self, index: int) -> str:
        part, place = self._place(index)
        return part.name(place)

    def _place(self, index: int) -> tuple[LabeledImages, int]:
        number = bisect_right(self._ends, index)
        return self._parts[number], index - (self._ends[number - 1] if number else 0)
