"""The data that a checkpoint is evaluated, proved and calibrated on: its run's own, divided as the run divided them."""

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
    """Return the folder of the run that a checkpoint or an artifact is of; None where it lies in no run.

    A run's folder itself, a file in it, and a file in a folder of it, where `fastvit export` writes, are of the run.
    """
    path = user_path(checkpoint)
    if not path.exists():  # a repository on the Hub
        return None
    places = [folder for start in (path, path.resolve()) for folder in (start, start.parent, start.parent.parent)]
    return next((folder for folder in places if _is_run(folder)), None)


def _is_run(folder: Path) -> bool:
    # A recipe alone, or a split.csv of another kind, may be anybody's file.
    split = folder / SPLIT
    ours = split.is_file() and split.read_bytes()[:17] == b"image,class,split"
    return ours or all((folder / name).is_file() for name in (RECIPE, ENVIRONMENT))


class EvaluationData:
    """The data to evaluate, prove and calibrate a checkpoint on.

    Where the run of the checkpoint held out a part of its images, its split.csv lists which of them count as validation
    images. Of any other data, images by the names of those that the run trained on are refused.

    Args:
        checkpoint: a run's folder, or a checkpoint or an artifact in one; any other one has no run. None for none.
        data: name or path of the data; None for those of the run, or for what has no run the embedded sample.

    Attributes:
        run: folder of the run; None where there is none.
    """

    def __init__(self, checkpoint: str | Path | None, data: str | None) -> None:
        self.run = run_of(checkpoint) if checkpoint is not None else None
        self._given = data

    @property
    def source(self) -> str:
        """Name or path of the data; the path that a run's recipe names is absolute, to be read from any folder.

        Raises:
            UserError: they are to be those of the run, which cannot be found.
        """
        if self._given is not None:
            return self._given
        if self.run is None:
            return "sample"
        own = self._recorded("data")
        if own is None:
            raise UserError(f"{self.run} does not contain a {RECIPE} that names its data: give them with --data")
        if own == "sample" or own.partition("/")[0] in _NAMED:
            return str(own)
        path = user_path(own).absolute()
        if not path.exists():
            raise UserError(
                f"the data of {self.run} are not there: there is no {path}; give their new place, or other data, with "
                "--data"
            )
        return str(path)

    @property
    def split(self) -> str | None:
        """What `images("test")` are as far as names tell, "validation" or "training"; None for a folder without parts.

        Raises:
            UserError: as `source`.
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
            classes: as `fastvit.data.load.open_images` has them.

        Raises:
            UserError: there are no such data, the run trained on some of them, or its split.csv is lost, which tells
                that.
        """
        part = self._part_of_run(split, classes)
        if part is not None:
            return part
        pictures = open_images(self.source, split, classes)
        if split == "test":
            self._see_that_none_was_trained_on(pictures)
        return pictures

    def _recorded(self, field: str) -> Any:
        """Return a field of the run's recipe; None where there is no recipe."""
        return read_settings(self.run / RECIPE).get(field) if self.run else None

    def _part_of_run(self, split: Split, classes: Sequence[str] | None) -> Part | None:
        """Return the images of a part of the run's split; None where the split is not of these data."""
        if self.run is None:
            return None
        source, own, file = self.source, self._is_own(), self.run / SPLIT
        divided = not is_image_folder(source) or _validation_folder(source) is not None
        if not file.is_file():
            if self._recorded("val_fraction") and (own or not divided):
                raise UserError(
                    f"{self.run} held out a part of its images, but does not contain the {SPLIT} that lists them, and "
                    f"{source} may contain images that it trained on: restore {SPLIT}, or give data with a validation "
                    "part of their own with --data"
                )
            return None
        if source.startswith("wds/") or self._has_validation_images(source, own, file):  # shards are never held out of
            return None
        try:
            pictures, root = open_unsplit(source, classes)
        except UserError:
            if own:
                raise
            return None
        parts, found = read_split(file), keys(pictures, root)
        missing = parts.keys() - set(found)
        if not own and missing and (root is None or not _is_copy(parts, found)):  # rows are not told by their places
            return None
        _see_that_it_is_whole(source, file, parts, missing)
        if added := [name for name, label in found if (name, label) not in parts]:
            warnings.warn(
                f"{source} has images that {file} does not name, which are left out ({shortened(added)})", stacklevel=2
            )
        return Part(pictures, [i for i, key in enumerate(found) if parts.get(key) == _PARTS[split]], root)

    def _is_own(self) -> bool:
        """Whether the data are those that the run names."""
        own = self._recorded("data")
        if self._given is None or own is None:
            return self._given is None
        given, recorded = user_path(self._given), user_path(own)
        return self._given == own or (given.is_dir() and recorded.is_dir() and given.samefile(recorded))

    def _has_validation_images(self, source: str, own: bool, file: Path) -> bool:
        """Whether a folder has validation images of its own, which count instead of the run's."""
        if not is_image_folder(source) or not (validation := _validation_folder(source)):
            return False
        if own and self._given is not None:
            raise UserError(
                f"{validation} contains validation images, and {file} names others: give --data {validation} for the "
                "former, leave --data out for the latter"
            )
        return not own

    def _see_that_none_was_trained_on(self, pictures: LabeledImages) -> None:
        """See that the images of a folder are not some that the run trained on, as far as their names tell."""
        if self.run is None or not (file := self.run / SPLIT).is_file() or not is_image_folder(self.source):
            return
        parts = read_split(file)
        trained = [key[0] for key in keys(pictures, user_path(self.source)) if parts.get(key) == "train"]
        if trained:
            raise UserError(
                f"{len(trained)} of the {len(pictures)} images of {self.source} have the names of images that "
                f"{self.run} trained on ({shortened(trained)}): give a copy of the run's data that has all its "
                "validation images, or images that it did not train on; if these are such, rename them, or take a copy "
                "of the checkpoint outside of the run's folder"
            )


def _validation_folder(source: str) -> Path | None:
    return split_folder(user_path(source), "test")


def _is_copy(parts: dict[Key, str], found: Sequence[Key]) -> bool:
    """Whether images are those of a run, or lack some of its training images alone."""
    validation = {key for key, part in parts.items() if part == "val"}
    return validation <= set(found) and any(parts.get(key) == "train" for key in found)


def _see_that_it_is_whole(source: str, file: Path, parts: dict[Key, str], missing: set[Key]) -> None:
    """See that all validation images are in the data of a run; warn of training images that are not."""
    validation = sorted(name for name, label in missing if parts[name, label] == "val")
    if validation:
        raise UserError(
            f"{source} lacks validation images that {file} names ({shortened(validation)}): put them back, or give "
            "other data with --data"
        )
    if missing:
        names = shortened(sorted(name for name, _ in missing))
        warnings.warn(f"{source} lacks training images that {file} names ({names})", stacklevel=3)
