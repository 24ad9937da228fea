"""Long JSON lists, an entry at a time: the vertices of FreiHAND's training set are hundreds of megabytes of text."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from fastvit.errors import UserError

_CHUNK = 1 << 24


class JsonRows:
    """A file that holds one list of numbers, or of nested lists of numbers, whose entries are parsed when asked for.

    Opening it looks for the commas between the entries, once through the file; afterwards an entry is read from its
    place. It holds no file open, so that it can be sent to other processes.

    Args:
        path: of the file.

    Raises:
        UserError: it is missing, or no such list, or cut short; or, later, an entry cannot be parsed.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._starts = _entries(path)
        except OSError as error:
            raise UserError(f"{path} cannot be read: {error.strerror}") from error

    def __len__(self) -> int:
        return len(self._starts) - 1

    def __getitem__(self, index: int) -> Any:
        start, end = int(self._starts[index]), int(self._starts[index + 1]) - 1
        try:
            with self.path.open("rb") as file:
                file.seek(start)
                return json.loads(file.read(end - start))
        except (OSError, ValueError) as error:
            raise UserError(f"entry {index} of {self.path} cannot be read: {error}") from error

    def array(self, index: int, shape: tuple[int, ...]) -> np.ndarray:
        """An entry as float64 of a shape; one of no shape may be in brackets of its own.

        Raises:
            UserError: it has another shape, or is not finite.
        """
        try:
            values = np.asarray(self[index], np.float64)
        except (TypeError, ValueError) as error:
            if isinstance(error, UserError):
                raise
            raise UserError(f"entry {index} of {self.path} is no array of numbers") from error
        if values.size == np.prod(shape, dtype=int) and values.squeeze().shape == tuple(s for s in shape if s != 1):
            values = values.reshape(shape)
        if values.shape != shape:
            raise UserError(f"entry {index} of {self.path} has shape {values.shape}, expected {shape}")
        if not np.isfinite(values).all():
            raise UserError(f"entry {index} of {self.path} has values that are not finite")
        return values

    def __iter__(self) -> Iterator[Any]:
        return (self[index] for index in range(len(self)))


def _entries(path: Path) -> np.ndarray:
    """(N + 1,) where each entry starts, and one behind the closing bracket."""
    starts, depth, begun, offset, last = [], 0, False, 0, b""
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            bytes_ = np.frombuffer(chunk, np.uint8)
            marks = np.flatnonzero((bytes_ == ord("[")) | (bytes_ == ord("]")) | (bytes_ == ord(",")))
            kinds = bytes_[marks]
            steps = (kinds == ord("[")).astype(np.int64) - (kinds == ord("]"))
            depths = depth + np.cumsum(steps)
            if not begun and len(marks):
                if kinds[0] != ord("[") or chunk[: marks[0]].strip():
                    raise UserError(f"{path} is no JSON list")
                starts.append(offset + int(marks[0]) + 1)
                begun = True
            starts += (offset + 1 + marks[(kinds == ord(",")) & (depths == 1)]).tolist()
            if len(depths):
                depth = int(depths[-1])
                if (closing := np.flatnonzero(depths <= 0)).size:
                    end = int(marks[closing[0]])
                    if chunk[end + 1 :].strip() or depths[closing[0]] < 0:
                        raise UserError(f"{path} is no JSON list: something follows its end")
                    last = chunk[:end].rstrip()[-1:]
                    starts.append(offset + end + 1)
            offset += len(chunk)
    if not begun or depth:
        raise UserError(f"{path} is {'cut short' if begun else 'no JSON list'}: get it again")
    if len(starts) == 2 and last == b"[":  # nothing between the brackets
        return np.array(starts[:1], np.int64)
    return np.array(starts, np.int64)
