"""The idx files of MNIST and Fashion-MNIST, plain or gzipped. Needs NumPy only."""

from __future__ import annotations

import gzip
import struct
import zlib
from pathlib import Path

import numpy as np

from fastvit.errors import UserError

UNSIGNED_BYTES = 0x08


def read_idx(path: Path) -> np.ndarray:
    """Read an idx file of unsigned bytes as a uint8 array, in the shape that its header gives.

    Raises:
        UserError: the file is missing, corrupt or truncated, or its values are not unsigned bytes.
    """
    try:
        content = path.read_bytes()
        raw = gzip.decompress(content) if content[:2] == b"\x1f\x8b" else content
        zero, kind, ndim = struct.unpack(">HBB", raw[:4])
        shape = struct.unpack(f">{ndim}I", raw[4 : 4 + 4 * ndim])
    except FileNotFoundError as error:
        raise UserError(f"{path} does not exist") from error
    except (OSError, EOFError, zlib.error, struct.error) as error:
        raise UserError(f"{path} is corrupt or truncated: {error}") from error
    if zero != 0 or kind != UNSIGNED_BYTES:
        raise UserError(f"{path} is not an idx file of unsigned bytes")
    values = np.frombuffer(raw, np.uint8, offset=4 + 4 * ndim)
    if values.size != np.prod(shape):
        raise UserError(f"{path} is corrupt: its header gives the shape {shape}, but it contains {values.size} values")
    return values.reshape(shape)


def write_idx(path: Path, values: np.ndarray) -> None:
    """Write a uint8 array as a gzipped idx file; the same array gives the same bytes."""
    header = struct.pack(f">HBB{values.ndim}I", 0, UNSIGNED_BYTES, values.ndim, *values.shape)
    path.write_bytes(gzip.compress(header + np.ascontiguousarray(values, np.uint8).tobytes(), 9, mtime=0))
