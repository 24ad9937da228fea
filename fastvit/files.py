"""Atomic writes, which keep the previous file if the process is killed or the disk is full; paths and folders."""

from __future__ import annotations

import os
import shutil
import tempfile
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fastvit.errors import UserError
from fastvit.variables import read_variable

# Error handler for file names that are not UTF-8, such as those from old archives: their bytes are preserved.
ANY_NAME = "surrogateescape"


@contextmanager
def atomic(path: str | Path) -> Iterator[Path]:
    """Write a file atomically: yield a temporary path beside it, which replaces the file when the block succeeds.

    If the block fails, the temporary file is removed and the previous file is kept.

    Raises:
        UserError: the file cannot be written; the previous one is not changed.
    """
    target = Path(path)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name[:100]}.", suffix=".part")
        os.close(handle)
    except OSError as error:
        raise UserError(f"cannot write {target}: {error.strerror}") from error
    part = Path(name)
    try:
        yield part
        # mkstemp makes files private; set the permissions that open() would give.
        umask = os.umask(0)
        os.umask(umask)
        part.chmod(0o666 & ~umask)
        with part.open("rb") as written:
            os.fsync(written.fileno())
        part.replace(target)
    except OSError as error:
        raise UserError(f"cannot write {target}: {error.strerror or error}") from error
    finally:
        part.unlink(missing_ok=True)


def write_text(path: str | Path, text: str) -> None:
    """Write a text file atomically, as UTF-8.

    Raises:
        UserError: the file cannot be written; the previous one is not changed.
    """
    with atomic(path) as part:
        part.write_text(text, encoding="utf-8")


class TemporaryFolder:
    """Temporary folder that is removed when this object is garbage-collected, or when the process ends.

    `tempfile.TemporaryDirectory` would warn then, because it must be closed.

    Attributes:
        path: path of the folder.
    """

    def __init__(self) -> None:
        self.path = Path(tempfile.mkdtemp(prefix="fastvit-"))
        weakref.finalize(self, _remove_in, os.getpid(), self.path)


def _remove_in(process: int, folder: Path) -> None:
    # A forked process has the object too, and may end before the process that uses the folder.
    if os.getpid() == process:
        shutil.rmtree(folder, ignore_errors=True)


def user_path(source: str | Path) -> Path:
    """Return a path that a user has given: unchanged if it exists, else with ~ replaced by the home folder.

    Raises:
        UserError: the path begins with ~NAME, and neither this file nor this user exists.
    """
    path = Path(source)
    if path.exists():
        return path
    try:
        return path.expanduser()
    except RuntimeError as error:
        raise UserError(f"{source} was not found: neither this file nor a user of that name exists") from error


def cache_folder() -> Path:
    """Return the cache folder: the environment variable FASTVIT_CACHE, or ~/.cache/fastvit."""
    standard = Path(read_variable("XDG_CACHE_HOME") or "~/.cache") / "fastvit"
    folder = Path(read_variable("FASTVIT_CACHE") or standard)
    try:
        return folder.expanduser()
    except RuntimeError:
        # In a container, a user that is not in the list of users has the home "/", as in Docker; ~NAME is a file name.
        return Path("/") / folder.relative_to("~") if folder.parts[0] == "~" else folder
