"""Data for evaluation, verification and calibration of a checkpoint: by default those of its run, with its split."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fastvit.data.classes import shortened
from fastvit.data.datasets import LabeledImages
from fastvit.data.folders import is_named_for, split_folder
from fastvit.data.load import is_image_folder, open_images, open_unsplit
from fastvit.data.split_names import Split
from fastvit.data.splitting import Key, Part, keys, read_split
from fastvit.errors import UserError
from fastvit.files import user_path
from fastvit.runs.files import ENVIRONMENT, RECIPE, SPLIT
from fastvit.runs.settings import read_settings

_PARTS: dict[Split, str] = {"train": "train", "test": "val"}
_NAMED = ("torch", "hfds", "wds")


def run_of(checkpoint: str | Path) -> Path | None:
    """Return the folder of the run that a checkpoint or an artifact belongs to; None if it belongs to no run.

    A run's folder, a file in it, and a file in one of its subfolders (`fastvit export` writes there) belong to the run.
    """
    path = user_path(checkpoint)
    if not path.exists():  # a repository on the Hub
        return None
    folders = [folder for start in (path, path.resolve()) for folder in (start, start.parent, start.parent.parent)]
    return next((folder for folder in folders if _is_run(folder)), None)


def _is_run(folder: Path) -> bool:
    # A recipe alone, or a split.csv with other columns, may be from elsewhere.
    split = folder / SPLIT
    ours = split.is_file() and split.read_bytes()[:17] == b"image,class,split"
    return ours or all((folder / name).is_file() for name in (RECIPE, ENVIRONMENT))


class EvaluationData:
    """Data to evaluate, verify and calibrate a checkpoint on.

    If the run of the checkpoint split its images, its split.csv lists the validation images. Other data that contain
    images with the names of the run's training images raise an error.

    Args:
        checkpoint: folder of a run, or a checkpoint or an artifact in one; other checkpoints have no run. None for no
            checkpoint.
        data: name or path of the data; None for those of the run, or for the embedded sample if there is no run.

    Attributes:
        run: folder of the run; None if there is no run.
    """

    def __init__(self, checkpoint: str | Path | None, data: str | None) -> None:
        self.run = run_of(checkpoint) if checkpoint is not None else None
        self._given = data

    @property
    def source(self) -> str:
        """Name or path of the data; a path from a run's recipe is made absolute.

        Raises:
            UserError: no data were given, and those of the run are unknown or were not found.
        """
        if self._given is not None:
            return self._given
        if self.run is None:
            return "sample"
        own = self._recorded("data")
        if own is None:
            raise UserError(f"{self.run} does not contain a {RECIPE} with a field data: give the data with --data")
        if own == "sample" or own.partition("/")[0] in _NAMED:
            return str(own)
        path = user_path(own).absolute()
        if not path.exists():
            raise UserError(
                f"the data of {self.run} were not found: {path} does not exist; give their new path, or other data, "
                "with --data"
            )
        return str(path)

    @property
    def split(self) -> str | None:
        """Split of `images("test")` by folder names, "validation" or "training"; None for a folder without splits.

        Raises:
            UserError: no data were given, and those of the run are unknown or were not found.
        """
        if not is_image_folder(self.source) or self._is_own() or _validation_folder(self.source):
            return "validation"
        root = user_path(self.source)
        if is_named_for(root, "train"):
            return "training"
        return "validation" if is_named_for(root, "test") else None

    def images(self, split: Split, classes: Sequence[str] | None = None) -> LabeledImages:
        """Open the labeled images of a classifier's data.

        Args:
            split: "train", or "test" for the validation images.
            classes: class names of the model, see `fastvit.data.load.open_images`.

        Raises:
            UserError: the data were not found, the run trained on some of the validation images, or its split.csv,
                which lists them, is missing.
        """
        part = self._part_of_run(split, classes)
        if part is not None:
            return part
        pictures = open_images(self.source, split, classes)
        if split == "test":
            self._check_not_trained_on(pictures)
        return pictures

    def _recorded(self, field: str) -> Any:
        """Return a field of the run's recipe; None if there is no recipe."""
        return read_settings(self.run / RECIPE).get(field) if self.run else None

    def _part_of_run(self, split: Split, classes: Sequence[str] | None) -> Part | None:
        """Return the images of a part of the run's split; None if the split does not belong to these data."""
        if self.run is None:
            return None
        source, own, file = self.source, self._is_own(), self.run / SPLIT
        divided = not is_image_folder(source) or _validation_folder(source) is not None
        if not file.is_file():
            if self._recorded("val_fraction") and (own or not divided):
                raise UserError(
                    f"{self.run} split its images, but does not contain the {SPLIT} that lists its validation images, "
                    f"and {source} may contain images that it trained on: restore {SPLIT}, or give data with their own "
                    "validation images with --data"
                )
            return None
        if source.startswith("wds/") or self._has_validation_images(source, own, file):  # shards are never split
            return None
        try:
            pictures, root = open_unsplit(source, classes)
        except UserError:
            if own:
                raise
            return None
        parts, found = read_split(file), keys(pictures, root)
        missing = parts.keys() - set(found)
        if (
            not own and missing and (root is None or not _is_copy(parts, found))
        ):  # the index of a row does not identify it
            return None
        _check_complete(source, file, parts, missing)
        if added := [name for name, label in found if (name, label) not in parts]:
            warnings.warn(
                f"{source} contains images that {file} does not list; they are left out ({shortened(added)})",
                stacklevel=2,
            )
        return Part(pictures, [i for i, key in enumerate(found) if parts.get(key) == _PARTS[split]], root)

    def _is_own(self) -> bool:
        """Return whether the data are those in the run's recipe."""
        own = self._recorded("data")
        if self._given is None or own is None:
            return self._given is None
        given, recorded = user_path(self._given), user_path(own)
        return self._given == own or (given.is_dir() and recorded.is_dir() and given.samefile(recorded))

    def _has_validation_images(self, source: str, own: bool, file: Path) -> bool:
        """Return whether a folder has its own validation images, which are used instead of the run's split."""
        if not is_image_folder(source) or not (validation := _validation_folder(source)):
            return False
        if own and self._given is not None:
            raise UserError(
                f"{validation} contains validation images, but {file} lists others: give --data {validation} for the "
                "former, leave out --data for the latter"
            )
        return not own

    def _check_not_trained_on(self, pictures: LabeledImages) -> None:
        """Raise a UserError if a folder contains images that the run trained on, by their names."""
        if self.run is None or not (file := self.run / SPLIT).is_file() or not is_image_folder(self.source):
            return
        parts = read_split(file)
        trained = [key[0] for key in keys(pictures, user_path(self.source)) if parts.get(key) == "train"]
        if trained:
            raise UserError(
                f"{len(trained)} of the {len(pictures)} images of {self.source} have the names of images that "
                f"{self.run} trained on ({shortened(trained)}): give a copy of the run's data that has all its "
                "validation images, or images that it did not train on; if only the names are equal, rename them, "
                "or copy the checkpoint out of the run's folder"
            )


def _validation_folder(source: str) -> Path | None:
    return split_folder(user_path(source), "test")


def _is_copy(parts: dict[Key, str], found: Sequence[Key]) -> bool:
    """Return whether images are those of a run; some training images may be missing."""
    validation = {key for key, part in parts.items() if part == "val"}
    return validation <= set(found) and any(parts.get(key) == "train" for key in found)


def _check_complete(source: str, file: Path, parts: dict[Key, str], missing: set[Key]) -> None:
    """Raise a UserError if the data of a run lack validation images, and warn if they lack training images."""
    validation = sorted(name for name, label in missing if parts[name, label] == "val")
    if validation:
        raise UserError(
            f"{source} lacks validation images that {file} lists ({shortened(validation)}): restore them, or give "
            "other data with --data"
        )
    if missing:
        names = shortened(sorted(name for name, _ in missing))
        warnings.warn(f"{source} lacks training images that {file} lists ({names})", stacklevel=3)
