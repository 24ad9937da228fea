"""Splitting images into training and validation parts, and the CSV file of a split."""

from __future__ import annotations

import csv
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from fastvit.data.classes import shortened
from fastvit.data.datasets import LabeledImages
from fastvit.data.sampling import seed_of
from fastvit.data.subset import Subset
from fastvit.errors import UserError
from fastvit.files import ANY_NAME, atomic

_HEADER = ("image", "class", "split")
# An image, independent of where its source is stored: its name inside the source, and its class.
Key = tuple[str, str]


class Part(Subset):
    """Images of one part of a split.

    Attributes:
        pictures: the images of the source.
        indices: their indices in the source.
        root: folder of the source's images; None if they are not in one.
    """

    def __init__(self, pictures: LabeledImages, indices: Sequence[int], root: Path | None = None) -> None:
        super().__init__(pictures, indices)
        self.root = root


def validation_mask(labels: Sequence[int], fraction: float, seed: int) -> np.ndarray:
    """Draw validation images at random, the same fraction of every class.

    A class with n images gives round(n * fraction), at least 1 and at most n - 1; a class with one image gives none.

    Args:
        labels: class index of each of the N images.
        fraction: fraction of the images to validate on, above 0 and below 1.
        seed: seed of the random choice.

    Returns:
        (N,) bool, true for validation images.

    Raises:
        UserError: the fraction is not between 0 and 1, or every class has only one image.
    """
    if not 0 < fraction < 1:
        raise UserError(f"val_fraction must be above 0 and below 1, got {fraction}")
    classes = np.asarray(labels)
    mask = np.zeros(len(classes), bool)
    for label in np.unique(classes):
        (own,) = np.nonzero(classes == label)
        if len(own) > 1:
            count = min(max(round(len(own) * fraction), 1), len(own) - 1)
            mask[np.random.default_rng(seed_of(seed, int(label))).permutation(own)[:count]] = True
    if not mask.any():
        raise UserError("val_fraction gives no validation images: every class has only one image")
    return mask


def split_off(
    pictures: LabeledImages, fraction: float, seed: int, file: Path | None = None, root: Path | None = None
) -> tuple[Part, Part]:
    """Split a source into training and validation images.

    Args:
        pictures: all images of the source.
        fraction: fraction of each class to validate on, see `validation_mask`.
        seed: seed of the random choice.
        file: CSV file of `write_split` with the split to use; None draws a new split.
        root: folder of the images; None if they are not in one.

    Raises:
        UserError: fraction is not between 0 and 1, or the file is missing or belongs to other images or another
            fraction.
    """
    mask = validation_mask(pictures.labels, fraction, seed)
    if file is not None:
        if not file.exists():
            raise UserError(
                f"{file}, which lists the validation images of the run, does not exist: restore it, or start a new run "
                "in another folder"
            )
        written = _read(file, pictures, root)
        if written.sum() != mask.sum():
            raise UserError(
                f"{file} lists {written.sum()} validation images, but a val_fraction of {fraction} gives {mask.sum()}: "
                "set the val_fraction that it was written with, or start a new run in another folder for another split"
            )
        mask = written
    train, validation = (Part(pictures, np.nonzero(chosen)[0].tolist(), root) for chosen in (~mask, mask))
    return train, validation


def write_split(file: Path, validation: Part) -> None:
    """Write a CSV file with a row for each image of the source: its name, its class, "train" or "val".

    Names of images in a folder are relative to it, so that the split stays valid when the folder is moved.
    """
    held = set(validation.indices)
    rows = _rows(validation.pictures, validation.root)
    with atomic(file) as part, part.open("w", newline="", encoding="utf-8", errors=ANY_NAME) as opened:
        writer = csv.writer(opened)
        writer.writerow(_HEADER)
        writer.writerows((*row, "val" if index in held else "train") for index, row in enumerate(rows))


def read_split(file: Path) -> dict[Key, str]:
    """Read the CSV file of `write_split`: "train" or "val" for each image of the source.

    Raises:
        UserError: the file does not contain a split.
    """
    with file.open(newline="", encoding="utf-8", errors=ANY_NAME) as opened:
        header, *rows = [tuple(row) for row in csv.reader(opened)] or [()]
    if header != _HEADER or any(len(row) != 3 or row[2] not in ("train", "val") for row in rows):
        raise UserError(
            f"{file} does not contain a split (columns {', '.join(_HEADER)}): restore it, or start a new run in "
            "another folder"
        )
    return {_key(name, label): split for name, label, split in rows}


def keys(pictures: LabeledImages, root: Path | None) -> list[Key]:
    """Return the keys of a source's images, in their order; `read_split` uses the same keys.

    Args:
        pictures: images of the source.
        root: folder of the images; None if they are not in one.
    """
    return [_key(*row) for row in _rows(pictures, root)]


def _key(name: str, label: str) -> Key:
    if name.endswith("]"):  # a row of an array or a table: its name contains the path of the file
        return name.rpartition("/")[2], label
    # The source may be the folder or its train folder.
    folder, _, rest = name.partition(os.sep)
    return (rest if folder != label and rest.startswith(f"{label}{os.sep}") else name), label


def _rows(pictures: LabeledImages, root: Path | None) -> list[tuple[str, str]]:
    names = (pictures.name(i) for i in range(len(pictures)))
    return [
        (name.removeprefix(f"{root}{os.sep}") if root else name, pictures.classes[label])
        for name, label in zip(names, pictures.labels, strict=True)
    ]


def _read(file: Path, pictures: LabeledImages, root: Path | None) -> np.ndarray:
    splits = read_split(file)
    own = keys(pictures, root)
    added, removed = [row for row in own if row not in splits], splits.keys() - set(own)
    if added or removed:
        names = [name for name, _ in [*added, *sorted(removed)]]
        raise UserError(
            f"the images differ from those in {file}: {len(added)} were added, {len(removed)} removed since "
            f"({shortened(names)}): give the same images, or start a new run in another folder for another split"
        )
    return np.array([splits[row] == "val" for row in own])
