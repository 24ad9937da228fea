"""Opening labeled images by name or path."""

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
    """Open the labeled images of one split.

    Args:
        source: "sample" (the embedded part of Fashion-MNIST); a folder with idx files; a folder of images with train
            and val (or validation, test) in it, each with one folder per class; "torch/NAME" for a torchvision dataset,
            which is downloaded to ~/.cache/fastvit if it is missing; "hfds/NAME" for a Hugging Face dataset, where NAME
            is a dataset on the Hub or a folder; "wds/NAME" for WebDataset shards, where NAME is a folder, a URL, or a
            brace pattern.
        split: "train", or "test" for the validation images.
        classes: class names of a model, in the order of its outputs, which the labels must follow; None uses the
            names of the data.

    Raises:
        UserError: the data were not found, or their classes differ from those of the model.
    """
    pictures = _open(str(source), split, classes)
    if classes and tuple(classes) != pictures.classes:
        raise UserError(
            f"the classes of {source} differ from those of the model: the data have {shortened(pictures.classes)}; "
            f"the model has {shortened(classes)}"
        )
    return pictures


def is_image_folder(source: str | Path) -> bool:
    """Return whether a source is a folder of images, and not of idx files or a named dataset."""
    root = user_path(source)
    return root.is_dir() and not has_idx(root)


def open_unsplit(source: str | Path, classes: Sequence[str] | None = None) -> tuple[LabeledImages, Path | None]:
    """Open the images that `val_fraction` splits: those of a folder, or the training images of another source.

    Args:
        source: name or path of the data, see `open_images`.
        classes: class names of a model, see `open_images`.

    Returns:
        The images, and their folder, or None if the source is not a folder of images.

    Raises:
        UserError: the data were not found, or their classes differ from those of the model.
    """
    root = user_path(source)
    if is_image_folder(source):
        return FolderImages(split_folder(root, "train") or root, classes), root
    return open_images(source, "train", classes), None


def open_for_training(
    source: str | Path, val_fraction: float = 0.0, seed: int = 0, split_file: Path | None = None
) -> tuple[LabeledImages, LabeledImages]:
    """Open the training and the validation images of a source.

    Args:
        source: name or path of the data, see `open_images`.
        val_fraction: fraction of the training images of each class to validate on, for a folder without validation
            images. The test images of a named dataset or of idx files are then not used. 0 uses the validation images
            of the source.
        seed: seed of the random split.
        split_file: CSV file with the split (see `fastvit.data.splitting.write_split`); None draws a new split.

    Raises:
        UserError: the data were not found, they do not fit val_fraction or split_file, their training and validation
            classes differ, or shards are to be split.
    """
    if val_fraction:
        if str(source).startswith("wds/"):
            raise UserError("val_fraction cannot split shards: give separate shards with the validation images")
        if is_image_folder(source) and (validation := split_folder(user_path(source), "test")):
            raise UserError(f"{validation} contains validation images: set val_fraction to 0, or move that folder away")
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
            f"the folder {root.absolute()} does not exist; give a folder of images or of idx files, sample, "
            "torch/NAME, hfds/NAME or wds/NAME"
        )
    return open_idx(root, split) if has_idx(root) else open_folder(root, split, classes)
