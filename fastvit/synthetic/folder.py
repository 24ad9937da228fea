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


def check_wanted(images: int, size: int, sizes: tuple[int, int], seed: int) -> None:
    """See that what is asked for can be made.

    Raises:
        UserError: it cannot; the message names the option.
    """
    if images < 1:
        raise UserError(f"images must be 1 or more, got {images}")
    if not sizes[0] <= size <= sizes[1]:
        raise UserError(f"size must be from {sizes[0]} to {sizes[1]} pixels, got {size}")
    if seed < 0:
        raise UserError(f"seed must be 0 or more, got {seed}")


@contextmanager
def dataset_folder(
    folder: Path, overwrite: bool, what: str, titles: tuple[str, ...], left: Collection[str]
) -> Iterator[Path]:
    """Yield a temporary folder, which becomes `folder` when the block succeeds and is removed when it fails.

    Args:
        folder: to make; may be there if it is empty.
        overwrite: replace one that we made before.
        what: is in it, for errors.
        titles: first lines of its README.md, which the block writes; a folder without one of them is not replaced.
        left: names of everything else at its top.

    Raises:
        UserError: the folder holds other things, or such ones already, or cannot be written.
    """
    target = user_path(folder).resolve()
    if target == Path.cwd():
        raise UserError(f"cannot make {folder} anew, the folder that this runs in: give the name of one inside it")
    part: Path | None = None
    try:
        _see_that_it_may_go(target, folder, overwrite, what, titles, left)
        target.parent.mkdir(parents=True, exist_ok=True)
        part = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}.", suffix=".part"))
        whole = part / "whole"  # made with the permissions that a person's folders have, which mkdtemp's is not
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


def _see_that_it_may_go(
    target: Path, folder: Path, overwrite: bool, what: str, titles: tuple[str, ...], left: Collection[str]
) -> None:
    """Raise a UserError if there is something that is not to be replaced."""
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
        raise UserError(f"{folder} holds other things ({foreign[0]}): give a folder that is empty or not there yet")
    if not overwrite:
        raise UserError(f"{folder} holds {what} already: --overwrite replaces them, or give another folder")
