"""Holding out a part of the images for validation, and writing down which."""

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
# An image wherever its source lies: its name inside the source, and its class.
Key = tuple[str, str]


class Part(Subset):
    """The images of one side of a split.

    Attributes:
        root: folder of the source's images, if they are in one.
    """

    def __init__(self, pictures: LabeledImages, indices: Sequence[int], root: Path | None = None) -> None:
        super().__init__(pictures, indices)
        self.root = root


def validation_mask(labels: Sequence[int], fraction: float, seed: int) -> np.ndarray:
    """(N,) bool: which images to validate on, the same share of every class, drawn at random.

    A class of n images gives round(n * fraction), but at least one and never all; a class of one image gives none.

    Raises:
        UserError: the fraction is not between 0 and 1, or no class has two images.
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
        raise UserError("val_fraction holds out no image: every class has only one")
    return mask


def split_off(
    pictures: LabeledImages, fraction: float, seed: int, file: Path | None = None, root: Path | None = None
) -> tuple[Part, Part]:
    """Training and validation images of a source that is not split.

    Args:
        pictures: the source.
        fraction: of each class to validate on, as `validation_mask` has it.
        seed: of the choice.
        file: of `write_split`, to take the split that it describes; None to make one.
        root: folder of the images, if they are in one.

    Raises:
        UserError: fraction makes no sense, or the file is not there, or is of other images or another fraction.
    """
    mask = validation_mask(pictures.labels, fraction, seed)
    if file is not None:
        if not file.exists():
            raise UserError(
                f"there is no {file}, which lists the images that the run held out: restore it, or begin a new run in "
                "another folder"
            )
        written = _read(file, pictures, root)
        if written.sum() != mask.sum():
            raise UserError(
                f"{file} holds out {written.sum()} images, a val_fraction of {fraction} {mask.sum()}: set the fraction "
                "that it was written with, or begin a new run in another folder for another split"
            )
        mask = written
    train, validation = (Part(pictures, np.nonzero(chosen)[0].tolist(), root) for chosen in (~mask, mask))
    return train, validation


def write_split(file: Path, validation: Part) -> None:
    """Write a CSV with a row an image of the whole source: its name, its class, "train" or "val".

    The images of a folder are named from there on, so that the split holds where the folder is moved.
    """
    held = set(validation.indices)
    rows = _rows(validation.pictures, validation.root)
    with atomic(file) as part, part.open("w", newline="", encoding="utf-8", errors=ANY_NAME) as opened:
        writer = csv.writer(opened)
        writer.writerow(_HEADER)
        writer.writerows((*row, "val" if index in held else "train") for index, row in enumerate(rows))


def read_split(file: Path) -> dict[Key, str]:
    """Read what `write_split` wrote: "train" or "val" for each image of the source.

    Raises:
        UserError: the file does not describe a split.
    """
    with file.open(newline="", encoding="utf-8", errors=ANY_NAME) as opened:
        header, *rows = [tuple(row) for row in csv.reader(opened)] or [()]
    if header != _HEADER or any(len(row) != 3 or row[2] not in ("train", "val") for row in rows):
        raise UserError(
            f"{file} does not describe a split ({', '.join(_HEADER)}): restore it, or begin a new run in another folder"
        )
    return {_key(name, label): split for name, label, split in rows}


def keys(pictures: LabeledImages, root: Path | None) -> list[Key]:
    """Return the keys of a source's images, by which `read_split` has them, in the order of the images.

    Args:
        pictures: the source.
        root: folder of the images, if they are in one.
    """
    return [_key(*row) for row in _rows(pictures, root)]


def _key(name: str, label: str) -> Key:
    if name.endswith("]"):  # a row of an array or a table: the place of its file is in the name
        return name.rpartition("/")[2], label
    # A folder may be given as a whole or as its train folder.
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
            f"the images are not those of {file}: {len(added)} were added, {len(removed)} removed since "
            f"({shortened(names)}): give the same images, or begin a new run in another folder for another split"
        )
    return np.array([splits[row] == "val" for row in own])
