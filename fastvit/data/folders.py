"""Image folders with one folder per class."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from PIL import Image
from timm.data.readers import create_reader
from timm.utils.misc import natural_key

from fastvit.data.classes import align_classes
from fastvit.data.images import read_image
from fastvit.data.split_names import SPLIT_NAMES, SPLIT_TITLES, Split, listed_names
from fastvit.errors import UserError

_HINT = "check that it has one folder per class, with the classes of the model"


class FolderImages:
    """Labeled images in class folders, at any depth below them; listed by timm's reader.

    The class is the topmost folder, as in torchvision's ImageFolder (timm's reader uses the innermost). Classes are in
    natural order ("2" before "10"). Hidden files and folders, and images outside of class folders, are left out.

    Args:
        root: folder that contains one folder per class.
        classes: class names of a model, which the labels must follow, see `fastvit.data.classes.align_classes`.

    Raises:
        UserError: no class folder contains an image, or the model does not have one of the classes.
    """

    def __init__(self, root: Path, classes: Sequence[str] | None = None) -> None:
        try:
            found = [path for path, _ in create_reader("", root=str(root)).samples]
        except (RuntimeError, AssertionError) as error:
            raise UserError(f"{root} has no images in class folders; expected {root}/CLASS/*.jpg ({error})") from error
        parts = [Path(path[len(str(root)) + 1 :]).parts for path in found]
        counted = [len(part) > 1 and not any(name.startswith(".") for name in part) for part in parts]
        self._paths = [path for path, counts in zip(found, counted, strict=True) if counts]
        folders = [part[0] for part, counts in zip(parts, counted, strict=True) if counts]
        if not folders:
            raise UserError(f"{root} has no images in class folders; expected {root}/CLASS/*.jpg")
        own = sorted(set(folders), key=natural_key)
        self.classes, indices = align_classes(own, classes, str(root), _HINT)
        index = dict(zip(own, indices, strict=True))
        self.labels = [index[folder] for folder in folders]

    def __len__(self) -> int:
        return len(self._paths)

    def image(self, index: int) -> Image.Image:
        """Decode an image as RGB."""
        return read_image(self._paths[index])

    def name(self, index: int) -> str:
        """Return the path of an image."""
        return self._paths[index]


def split_folder(root: Path, split: Split) -> Path | None:
    """Return the folder of a split, whose name may be in upper or lower case; None if there is none."""
    folders = {path.name.lower(): path for path in sorted(root.iterdir(), reverse=True) if path.is_dir()}
    return next((folders[name] for name in SPLIT_NAMES[split] if name in folders), None)


def is_named_for(root: Path, split: Split) -> bool:
    """Return whether a folder has one of the names of a split, in upper or lower case."""
    return root.absolute().name.lower() in SPLIT_NAMES[split]


def open_folder(root: Path, split: Split, classes: Sequence[str] | None = None) -> FolderImages:
    """Open the images of a split; all images of a folder without splits are validation images.

    Args:
        root: folder with a folder for each split, or with class folders.
        split: "train", or "test" for the validation images.
        classes: class names of a model, which the labels must follow, see `fastvit.data.classes.align_classes`.

    Raises:
        UserError: the folder does not have the split, has no images in class folders, or has classes that the model
            does not have.
    """
    folder = split_folder(root, split)
    if folder is None:
        if any(split_folder(root, other) for other in SPLIT_NAMES):
            remedy = (
                "" if split == "train" else ", or train with --val-fraction 0.2 to use a part of the training images"
            )
            raise UserError(f"{root} has no {SPLIT_TITLES[split]} folder ({listed_names(split)}): add one{remedy}")
        if split == "train":
            raise UserError(
                f"{root} needs a folder train and one of {', '.join(SPLIT_NAMES['test'])}, each with one folder per "
                "class; or set val_fraction to use a part of its images for validation"
            )
        folder = root
    return FolderImages(folder, classes)
