"""Opening labeled images by a name or a path."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from fastvit.data.arrays import SAMPLE, has_idx, open_idx, open_torchvision
from fastvit.data.classes import shortened
from fastvit.data.datasets import LabeledImages
from fastvit.data.folders import FolderImages, open_folder, split_folder
from fastvit.data.hfds import open_hfds
from fastvit.data.shard_lists import open_shards
from fastvit.data.split_names import Split
from fastvit.data.splitting import split_off
from fastvit.errors import UserError
from fastvit.files import user_path


def open_images(source: str | Path, split: Split, classes: Sequence[str] | None = None) -> LabeledImages:
    """Labeled images of one split.

    Args:
        source: "sample" (the embedded part of Fashion-MNIST); a folder with idx files; a folder of images, a folder a
            class, with train and val (or validation, test) in it; "torch/NAME" for a torchvision dataset, which is
            downloaded to ~/.cache/fastvit if it is not there; "hfds/NAME" for a Hugging Face dataset, NAME being one on
            the Hub or a folder; "wds/NAME" for shards, NAME being a folder, an address, or shards in braces.
        split: "train", or "test" for the validation part.
        classes: names that the labels must have, in this order (those of a model); by default the data's own.

    Raises:
        UserError: there is no such data, or its classes are others.
    """
    pictures = _open(str(source), split, classes)
    if classes and tuple(classes) != pictures.classes:
        raise UserError(
            f"the classes of {source} are not those of the model: {shortened(pictures.classes)} against "
            f"{shortened(classes)}"
        )
    return pictures


def is_image_folder(source: str | Path) -> bool:
    """Whether a source is a folder of images, not of idx files, nor a named set."""
    root = user_path(source)
    return root.is_dir() and not has_idx(root)


def open_unsplit(source: str | Path, classes: Sequence[str] | None = None) -> tuple[LabeledImages, Path | None]:
    """Open all images that a val_fraction divides: those of a folder, or the training images of another source.

    Args:
        source: as in `open_images`.
        classes: as in `open_images`.

    Returns:
        The images, and the folder that they are in, if it is a folder of images.

    Raises:
        UserError: there is no such data, or its classes are others.
    """
    root = user_path(source)
    if is_image_folder(source):
        return FolderImages(split_folder(root, "train") or root, classes), root
    return open_images(source, "train", classes), None


def open_for_training(
    source: str | Path, val_fraction: float = 0.0, seed: int = 0, split_file: Path | None = None
) -> tuple[LabeledImages, LabeledImages]:
    """Images to train on and to validate on.

    Args:
        source: as in `open_images`.
        val_fraction: of the training images of each class to validate on, for a folder without validation images; of
            a source with test images (a named set, idx files), these are then left alone. 0 takes the source's own.
        seed: of what is held out.
        split_file: CSV that the split is taken from (`fastvit.data.splitting.write_split`); None to make one.

    Raises:
        UserError: there is no such data, its splits do not fit each other or val_fraction, or shards are to be split.
    """
    if val_fraction:
        if str(source).startswith("wds/"):
            raise UserError("val_fraction cannot hold out a part of shards: give shards of the validation images")
        if is_image_folder(source) and (validation := split_folder(user_path(source), "test")):
            raise UserError(
                f"{validation} holds the validation images: leave val_fraction at 0, or move that folder away"
            )
        pictures, root = open_unsplit(source)
        return split_off(pictures, val_fraction, seed, split_file, root)
    pictures = open_images(source, "train")
    return pictures, open_images(source, "test", pictures.classes)


def _open(source: str, split: Split, classes: Sequence[str] | None) -> LabeledImages:
    if source == "sample":
        return open_idx(SAMPLE, split)
    kind, _, name = source.partition("/")
    if kind == "torch":
        return open_torchvision(name, split)
    if kind == "hfds":
        return open_hfds(name, split, classes)
    if kind == "wds":
        return open_shards(name, split, classes)
    root = user_path(source)
    if not root.is_dir():
        raise UserError(
            f"there is no folder {root.absolute()}; give a folder of images or of idx files, sample, torch/NAME, "
            "hfds/NAME or wds/NAME"
        )
    return open_idx(root, split) if has_idx(root) else open_folder(root, split, classes)
