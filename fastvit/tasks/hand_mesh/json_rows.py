"""Reading entries of long JSON lists: the vertices of FreiHAND's training set are hundreds of megabytes of text."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from fastvit.errors import UserError

_CHUNK = 1 << 24


class JsonRows:
    """JSON file with one list of numbers or nested lists of numbers, whose entries are parsed on access.

    The file is scanned once for the commas between the entries. It is not kept open, so that the object can be sent to
    other processes.

    Args:
        path: path of the file.

    Raises:
        UserError: the file is missing, truncated, or not such a list; or, on access, an entry cannot be parsed.
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
        """Return an entry as a float64 array; axes of length 1 may be missing or added in the file.

        Args:
            index: index of the entry.
            shape: expected shape.

        Raises:
            UserError: the entry has another shape, or values that are not finite numbers.
        """
        try:
            values = np.asarray(self[index], np.float64)
        except (TypeError, ValueError) as error:
            if isinstance(error, UserError):
                raise
            raise UserError(f"entry {index} of {self.path} is not an array of numbers") from error
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
    """Return the start of each entry in the file, and the position after the closing bracket, (N + 1,)."""
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
                    raise UserError(f"{path} is not a JSON list")
                starts.append(offset + int(marks[0]) + 1)
                begun = True
            starts += (offset + 1 + marks[(kinds == ord(",")) & (depths == 1)]).tolist()
            if len(depths):
                depth = int(depths[-1])
                if (closing := np.flatnonzero(depths <= 0)).size:
                    end = int(marks[closing[0]])
                    if chunk[end + 1 :].strip() or depths[closing[0]] < 0:
                        raise UserError(f"{path} is not a JSON list: there is text after its end")
                    last = chunk[:end].rstrip()[-1:]
                    starts.append(offset + end + 1)
            offset += len(chunk)
    if not begun or depth:
        raise UserError(f"{path} is {'truncated' if begun else 'not a JSON list'}: get the file again")
    if len(starts) == 2 and last == b"[":  # nothing between the brackets
        return np.array(starts[:1], np.int64)
    return np.array(starts, np.int64)
