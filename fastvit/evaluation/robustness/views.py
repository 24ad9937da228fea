"""Views of labeled images: cropped, corrupted, or several sets as one."""

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
    """Labeled images, resized and cropped as a model needs them.

    Args:
        images: labeled images.
        preprocessing: preprocessing of the model.
    """

    def __init__(self, images: LabeledImages, preprocessing: Preprocessing) -> None:
        self._images, self._pixels = images, eval_pixels(preprocessing)
        self.classes, self.labels = images.classes, images.labels

    def __len__(self) -> int:
        return len(self._images)

    def image(self, index: int) -> Image.Image:
        """Return a cropped image by its index."""
        return Image.fromarray(np.asarray(self._pixels(self._images.image(index))).transpose(1, 2, 0))

    def name(self, index: int) -> str:
        """Return the name of an image by its index."""
        return self._images.name(index)


class Corrupted:
    """Labeled images with a corruption.

    Args:
        images: clean images, at the size at which they are corrupted.
        corruption: corruption to apply.
        severity: severity of the corruption, 1 to 5.
        seed: random seed; the random numbers of an image depend on it and on its index.
    """

    def __init__(self, images: LabeledImages, corruption: Corruption, severity: int, seed: int) -> None:
        self._images, self._corruption, self._severity, self._seed = images, corruption, severity, seed
        self.classes, self.labels = images.classes, images.labels

    def __len__(self) -> int:
        return len(self._images)

    def image(self, index: int) -> Image.Image:
        """Return a corrupted image by its index."""
        rng = generator(self._seed, self._corruption.name, self._severity, index)
        return Image.fromarray(self._corruption(np.asarray(self._images.image(index)), self._severity, rng))

    def name(self, index: int) -> str:
        """Return the name of an image by its index."""
        return self._images.name(index)


class Joined:
    """Concatenation of several sets of labeled images with the same classes.

    Args:
        parts: sets of images, at least one.
    """

    def __init__(self, parts: Sequence[LabeledImages]) -> None:
        self._parts = parts
        self._ends = list(accumulate(map(len, parts)))
        self.classes = parts[0].classes
        self.labels = [label for part in parts for label in part.labels]

    def __len__(self) -> int:
        return self._ends[-1]

    def image(self, index: int) -> Image.Image:
        """Return an image by its index."""
        part, position = self._position(index)
        return part.image(position)

    def name(self, index: int) -> str:
        """Return the name of an image by its index."""
        part, position = self._position(index)
        return part.name(position)

    def _position(self, index: int) -> tuple[LabeledImages, int]:
        number = bisect_right(self._ends, index)
        return self._parts[number], index - (self._ends[number - 1] if number else 0)
