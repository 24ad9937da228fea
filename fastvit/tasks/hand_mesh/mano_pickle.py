"""Reading MANO's pickles without running code from them.

A pickle is a program. The files of 2017 contain NumPy arrays, a SciPy sparse matrix, and arrays wrapped by chumpy, a
library that does not run on current Python versions. The few names that such files need are bound to functions and
classes of this module that only rebuild arrays; every other name is refused.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from fastvit.errors import UserError


def read_pickle(path: Path) -> dict[str, Any]:
    """Read the entries of a MANO pickle; arrays are NumPy arrays, sparse matrices are made dense.

    Raises:
        UserError: the pickle refers to a name that a hand model does not need, or is corrupt.
    """
    try:
        with path.open("rb") as file:
            content = _ArraysOnly(file, encoding="latin1").load()
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    except (Exception, RecursionError) as error:  # a corrupt pickle can raise any error
        raise UserError(f"{path} cannot be read as a hand model: {type(error).__name__}: {error}") from error
    if not isinstance(content, Mapping):
        raise UserError(f"{path} contains a {type(content).__name__}, but a hand model is a dictionary of arrays")
    try:
        return {str(key): _plain(value) for key, value in content.items()}
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        raise UserError(f"{path} contains a corrupt array: {error}") from error


class _Stored:
    """Stand-in for an object of another library: its attributes, without its code."""

    def __setstate__(self, state: Any) -> None:
        if not isinstance(state, Mapping):
            raise UserError(f"it contains an object in a form that is not supported ({type(self).__name__})")
        self.attributes = dict(state)


class _Chumpy(_Stored):
    """Stand-in for chumpy's wrapped array: the array is its attribute x."""

    def array(self) -> np.ndarray:
        return np.asarray(_plain(self.attributes["x"]))


class _Select(_Stored):
    """Stand-in for chumpy's selection from another array, by flat indices."""

    def array(self) -> np.ndarray:
        source, places = (np.asarray(_plain(self.attributes[name])) for name in ("a", "idxs"))
        chosen: np.ndarray = source.ravel()[places.astype(np.int64)]
        shape = self.attributes.get("preferred_shape")
        return chosen if shape is None else chosen.reshape([int(side) for side in shape])


class _Sparse(_Stored):
    """Stand-in for SciPy's compressed sparse matrix."""

    by_column: bool

    def array(self) -> np.ndarray:
        rows, columns = (int(side) for side in self.attributes["_shape"])
        lines, length = (columns, rows) if self.by_column else (rows, columns)
        starts, places, data = (np.asarray(self.attributes[name]) for name in ("indptr", "indices", "data"))
        dense = np.zeros((lines, length), np.float64)
        np.add.at(dense, (np.repeat(np.arange(lines), np.diff(starts)), places), data)
        return dense.T if self.by_column else dense


class _Columns(_Sparse):
    by_column = True


class _Rows(_Sparse):
    by_column = False


def _new(kind: Any, base: Any = None, state: Any = None) -> _Stored:
    """Create an object as copyreg does, for stand-ins only."""
    if not (isinstance(kind, type) and issubclass(kind, _Stored)):
        raise UserError(f"it creates an object of {kind!r}, which a hand model does not need")
    return kind()


def _bytes(text: str, encoding: str = "latin1") -> bytes:
    """Decode Python 2's byte strings, as later protocols store them."""
    return text.encode("latin1")


def _empty_array(kind: Any, shape: Any, code: Any) -> np.ndarray:
    """Create an empty array as NumPy does; its state is set later."""
    if kind is not _Array:
        raise UserError(f"it creates an array of {kind!r}, which a hand model does not need")
    return np.ndarray((0,), np.uint8)


def _from_buffer(buffer: Any, dtype: np.dtype[Any], shape: Any, order: str) -> np.ndarray:
    """Create an array as protocol 5 does."""
    return np.frombuffer(buffer, dtype).reshape(shape, order="F" if order == "F" else "C")


def _scalar(dtype: np.dtype[Any], content: Any = b"") -> Any:
    raw = content.encode("latin1") if isinstance(content, str) else content
    return np.frombuffer(raw, dtype, 1)[0]


class _ObjectBase:
    """Stand-in for Python's `object`."""


class _Array:
    """Stand-in for NumPy's array type, with which a pickle could create an array of any size."""


_NAMES: dict[tuple[str, str], Callable[..., Any]] = {
    ("chumpy.ch", "Ch"): _Chumpy,
    ("chumpy.reordering", "Select"): _Select,
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): np.dtype,
    ("_codecs", "encode"): _bytes,
    **{(module, "_reconstructor"): _new for module in ("copy_reg", "copyreg")},
    **{(module, "object"): _ObjectBase for module in ("__builtin__", "builtins")},
    **{(f"numpy.{core}.multiarray", "_reconstruct"): _empty_array for core in ("core", "_core")},
    **{(f"numpy.{core}.multiarray", "scalar"): _scalar for core in ("core", "_core")},
    **{(f"numpy.{core}.numeric", "_frombuffer"): _from_buffer for core in ("core", "_core")},
    **{(f"scipy.sparse.{module}", "csc_matrix"): _Columns for module in ("csc", "_csc")},
    **{(f"scipy.sparse.{module}", "csr_matrix"): _Rows for module in ("csr", "_csr")},
}


class _ArraysOnly(pickle.Unpickler):
    """Unpickler that accepts only the names above."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _NAMES:
            raise UserError(
                f"it refers to {module}.{name}, which a hand model does not need; no code of the file was run. Get the "
                "file from its source again"
            )
        return _NAMES[module, name]

    def persistent_load(self, pid: Any) -> Any:
        raise UserError(f"it refers to an object outside of the file ({pid!r}), which a hand model does not need")


def _plain(value: Any) -> Any:
    """Return the array of a stand-in; other values are returned as they are."""
    if isinstance(value, (_Chumpy, _Select, _Sparse)):
        return value.array()
    return value
