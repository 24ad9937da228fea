"""Writing files so that a kill or a full disk never costs the previous one."""

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

# How to encode text that names files: bytes that are not UTF-8, as old archives have them, come back as they were.
ANY_NAME = "surrogateescape"


@contextmanager
def atomic(path: str | Path) -> Iterator[Path]:
    """A temporary path beside `path` to write to; moved onto it when the block ends well, removed when it does not.

    Raises:
        UserError: the file cannot be written; the previous one, if any, is as it was.
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
        # mkstemp makes files private; give what an ordinary open() would have given.
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
    """Write a text file atomically, as UTF-8."""
    with atomic(path) as part:
        part.write_text(text, encoding="utf-8")


class TemporaryFolder:
    """A temporary folder that is removed when nothing refers to this object any more, or when the process ends.

    `tempfile.TemporaryDirectory` warns of that, because it is meant to be closed. This one has no end but its owner's.

    Attributes:
        path: the folder.
    """

    def __init__(self) -> None:
        self.path = Path(tempfile.mkdtemp(prefix="fastvit-"))
        weakref.finalize(self, _remove_in, os.getpid(), self.path)


def _remove_in(process: int, folder: Path) -> None:
    # A forked process has the object too, and may end before the one that uses the folder.
    if os.getpid() == process:
        shutil.rmtree(folder, ignore_errors=True)


def user_path(source: str | Path) -> Path:
    """Return a path as a person gives it: as it is where there is such a file, else with ~ as the home.

    Raises:
        UserError: it begins with ~NAME, and there is neither such a file nor such a user.
    """
    path = Path(source)
    if path.exists():
        return path
    try:
        return path.expanduser()
    except RuntimeError as error:
        raise UserError(f"there is no file {source}, and no user whose home it could mean") from error


def cache_folder() -> Path:
    """Where what is made once and kept lies: what the environment variable FASTVIT_CACHE names, or ~/.cache/fastvit."""
    standard = Path(read_variable("XDG_CACHE_HOME") or "~/.cache") / "fastvit"
    folder = Path(read_variable("FASTVIT_CACHE") or standard)
    try:
        return folder.expanduser()
    except RuntimeError:
        # A user of a container who is in no list of users has the home "/", as Docker has it; another's is a name.
        return Path("/") / folder.relative_to("~") if folder.parts[0] == "~" else folder
