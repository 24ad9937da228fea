"""The idx files that MNIST and Fashion-MNIST come in, plain or gzipped. Needs NumPy only."""

from __future__ import annotations

import gzip
import struct
import zlib
from pathlib import Path

import numpy as np

from fastvit.errors import UserError

UNSIGNED_BYTES = 0x08


def read_idx(path: Path) -> np.ndarray:
    """uint8 array of the shape that the file states.

    Raises:
        UserError: the file is damaged, cut short, or not of unsigned bytes.
    """
    try:
        content = path.read_bytes()
        raw = gzip.decompress(content) if content[:2] == b"\x1f\x8b" else content
        zero, kind, ndim = struct.unpack(">HBB", raw[:4])
        shape = struct.unpack(f">{ndim}I", raw[4 : 4 + 4 * ndim])
    except (OSError, EOFError, zlib.error, struct.error) as error:
        raise UserError(f"{path} is damaged or cut short: {error}") from error
    if zero != 0 or kind != UNSIGNED_BYTES:
        raise UserError(f"{path} is no idx file of unsigned bytes")
    values = np.frombuffer(raw, np.uint8, offset=4 + 4 * ndim)
    if values.size != np.prod(shape):
        raise UserError(f"{path} is damaged: it states {shape} and holds {values.size} values")
    return values.reshape(shape)


def write_idx(path: Path, values: np.ndarray) -> None:
    """Write a uint8 array as a gzipped idx file, the same bytes every time."""
    header = struct.pack(f">HBB{values.ndim}I", 0, UNSIGNED_BYTES, values.ndim, *values.shape)
    path.write_bytes(gzip.compress(header + np.ascontiguousarray(values, np.uint8).tobytes(), 9, mtime=0))
