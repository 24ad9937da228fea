"""Folders of images, a folder a class."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from PIL import Image
from timm.data.readers import create_reader
from timm.utils.misc import natural_key

from fastvit.data.classes import align_classes
from fastvit.data.images import read_image
from fastvit.data.split_names import SPLIT_NAMES, Split
from fastvit.errors import UserError


class FolderImages:
    """A folder a class, with images in it or in folders of it; found through timm's reader.

    The class is the topmost folder, as torchvision's ImageFolder has it (timm's reader takes the innermost). Classes
    are in natural order ("2" before "10"). Hidden files and folders, and images that lie in no folder, do not count.

    Args:
        root: folder with a folder a class in it.
        classes: of a model, which the labels are to follow, as in `fastvit.data.classes.align_classes`.

    Raises:
        UserError: there are no such folders, or classes that the model does not know.
    """

    def __init__(self, root: Path, classes: Sequence[str] | None = None) -> None:
        try:
            found = [path for path, _ in create_reader("", root=str(root)).samples]
        except (RuntimeError, AssertionError) as error:
            raise UserError(f"there are no images in folders of {root}, one folder a class: {error}") from error
        parts = [Path(path[len(str(root)) + 1 :]).parts for path in found]
        counted = [len(part) > 1 and not any(name.startswith(".") for name in part) for part in parts]
        self._paths = [path for path, counts in zip(found, counted, strict=True) if counts]
        folders = [part[0] for part, counts in zip(parts, counted, strict=True) if counts]
        if not folders:
            raise UserError(f"there are no images in folders of {root}, one folder a class")
        own = sorted(set(folders), key=natural_key)
        self.classes, indices = align_classes(own, classes, str(root))
        index = dict(zip(own, indices, strict=True))
        self.labels = [index[folder] for folder in folders]

    def __len__(self) -> int:
        return len(self._paths)

    def image(self, index: int) -> Image.Image:
        return read_image(self._paths[index])

    def name(self, index: int) -> str:
        return self._paths[index]


def split_folder(root: Path, split: Split) -> Path | None:
    """The folder of a split by its name, in upper or lower case; None if there is none."""
    folders = {path.name.lower(): path for path in sorted(root.iterdir(), reverse=True) if path.is_dir()}
    return next((folders[name] for name in SPLIT_NAMES[split] if name in folders), None)


def is_named_for(root: Path, split: Split) -> bool:
    """Whether a folder is called by a split's name, in upper or lower case."""
    return root.absolute().name.lower() in SPLIT_NAMES[split]


def open_folder(root: Path, split: Split, classes: Sequence[str] | None = None) -> FolderImages:
    """The images of a split; a folder without any split is for evaluation.

    Raises:
        UserError: there is no such split, or as FolderImages has it.
    """
    folder = split_folder(root, split)
    if folder is None:
        if any(split_folder(root, other) for other in SPLIT_NAMES):
            raise UserError(f"{root} has no folder for the {split} split ({' or '.join(SPLIT_NAMES[split])})")
        if split == "train":
            raise UserError(
                f"{root} needs a folder train and one of {', '.join(SPLIT_NAMES['test'])}, each with a folder a class; "
                "or set val_fraction to hold out a part of its images"
            )
        folder = root
    return FolderImages(folder, classes)
