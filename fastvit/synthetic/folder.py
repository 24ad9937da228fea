"""Folders of synthetic data: written completely or not at all, and never over other files."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from fastvit.errors import UserError
from fastvit.files import user_path

README = "README.md"


def check_arguments(images: int, size: int, sizes: tuple[int, int], seed: int) -> None:
    """Check the arguments of a synthetic dataset.

    Args:
        images: number of training images.
        size: side of the images, in pixels.
        sizes: smallest and largest allowed size.
        seed: random seed.

    Raises:
        UserError: an argument is out of range.
    """
    if images < 1:
        raise UserError(f"images must be at least 1, got {images}")
    if not sizes[0] <= size <= sizes[1]:
        raise UserError(f"size must be from {sizes[0]} to {sizes[1]} pixels, got {size}")
    if seed < 0:
        raise UserError(f"seed must be at least 0, got {seed}")


@contextmanager
def dataset_folder(
    folder: Path, overwrite: bool, what: str, titles: tuple[str, ...], left: Collection[str]
) -> Iterator[Path]:
    """Yield a temporary folder, which becomes `folder` when the block succeeds and is removed when it fails.

    Args:
        folder: folder to write; it may exist if it is empty.
        overwrite: replace an earlier synthetic dataset.
        what: plural name of the content, for errors.
        titles: first lines of the README.md, which the block writes; a folder whose README.md starts otherwise is not
            replaced.
        left: names of the other files and folders that the block writes at the top level.

    Raises:
        UserError: the folder contains other files, or a synthetic dataset without `overwrite`, or cannot be written.
    """
    target = user_path(folder).resolve()
    if target == Path.cwd():
        raise UserError(f"cannot replace {folder}, the current directory: give a folder inside it")
    part: Path | None = None
    try:
        _check_replaceable(target, folder, overwrite, what, titles, left)
        target.parent.mkdir(parents=True, exist_ok=True)
        part = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}.", suffix=".part"))
        whole = part / "whole"  # with the default permissions, unlike the folder of mkdtemp
        whole.mkdir()
        yield whole
        if target.exists():
            target.replace(part / "previous")
        try:
            whole.replace(target)
        except BaseException:
            if (part / "previous").exists():
                (part / "previous").replace(target)
            raise
    except OSError as error:
        raise UserError(f"cannot write {folder}: {error.strerror or error}; give another folder") from error
    finally:
        if part:
            shutil.rmtree(part, ignore_errors=True)


def _check_replaceable(
    target: Path, folder: Path, overwrite: bool, what: str, titles: tuple[str, ...], left: Collection[str]
) -> None:
    """Raise a UserError if the folder exists and may not be replaced."""
    if not target.exists():
        return
    if not target.is_dir():
        raise UserError(f"{folder} is a file: give a folder to write the {what} to")
    names = {path.name for path in target.iterdir()}
    if not names:
        return
    readme = target / README
    ours = readme.is_file() and readme.read_bytes().startswith(tuple(title.encode() for title in titles))
    if foreign := sorted(names - {*left, README}) or ([] if ours else sorted(names)):
        raise UserError(f"{folder} contains other files ({foreign[0]}): give a folder that is empty or does not exist")
    if not overwrite:
        raise UserError(
            f"{folder} already contains synthetic {what}: replace them with --overwrite, or give another folder"
        )
