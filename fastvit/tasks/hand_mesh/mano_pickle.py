"""MANO's pickles, read without running anything that is in them.

A pickle is a program. The files of 2017 hold NumPy arrays, a SciPy sparse matrix, and arrays wrapped by chumpy, a
library that no current Python runs. Here the few names that such files need are bound to functions and classes of our
own that only rebuild arrays; every other name is refused.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from fastvit.errors import UserError


def read_pickle(path: Path) -> dict[str, Any]:
    """The entries of a MANO pickle, arrays among them as NumPy's, sparse matrices dense.

    Raises:
        UserError: it names what a hand model has no need of, or it is damaged.
    """
    try:
        with path.open("rb") as file:
            content = _ArraysOnly(file, encoding="latin1").load()
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    except (Exception, RecursionError) as error:  # a damaged pickle fails in whatever way its bytes happen to say
        raise UserError(f"{path} cannot be read as a hand model: {type(error).__name__}: {error}") from error
    if not isinstance(content, Mapping):
        raise UserError(f"{path} holds a {type(content).__name__}, a hand model is a dictionary of arrays")
    try:
        return {str(key): _plain(value) for key, value in content.items()}
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        raise UserError(f"{path} holds a damaged array: {error}") from error


class _Stored:
    """What stands in for an object of another library: its attributes, and none of its code."""

    def __setstate__(self, state: Any) -> None:
        if not isinstance(state, Mapping):
            raise UserError(f"it holds a {type(self).__name__} in a form that is not known here")
        self.attributes = dict(state)


class _Chumpy(_Stored):
    """chumpy's wrapped array: the array is its attribute x."""

    def array(self) -> np.ndarray:
        return np.asarray(_plain(self.attributes["x"]))


class _Select(_Stored):
    """chumpy's choice of entries of another array, by their places in it laid out flat."""

    def array(self) -> np.ndarray:
        source, places = (np.asarray(_plain(self.attributes[name])) for name in ("a", "idxs"))
        chosen: np.ndarray = source.ravel()[places.astype(np.int64)]
        shape = self.attributes.get("preferred_shape")
        return chosen if shape is None else chosen.reshape([int(side) for side in shape])


class _Sparse(_Stored):
    """SciPy's compressed sparse matrix."""

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
    """Copyreg's way to make an object, for the stand-ins alone."""
    if not (isinstance(kind, type) and issubclass(kind, _Stored)):
        raise UserError(f"it makes an object of {kind!r}, which a hand model has no need of")
    return kind()


def _bytes(text: str, encoding: str = "latin1") -> bytes:
    """How Python 2's strings of bytes come in later protocols."""
    return text.encode("latin1")


def _empty_array(kind: Any, shape: Any, code: Any) -> np.ndarray:
    """NumPy's way to make an array, which its state then fills."""
    if kind is not _Array:
        raise UserError(f"it makes an array of {kind!r}, which a hand model has no need of")
    return np.ndarray((0,), np.uint8)


def _from_buffer(buffer: Any, dtype: np.dtype[Any], shape: Any, order: str) -> np.ndarray:
    """Protocol 5's way."""
    return np.frombuffer(buffer, dtype).reshape(shape, order="F" if order == "F" else "C")


def _scalar(dtype: np.dtype[Any], content: Any = b"") -> Any:
    raw = content.encode("latin1") if isinstance(content, str) else content
    return np.frombuffer(raw, dtype, 1)[0]


class _ObjectBase:
    """What stands in for Python's `object`."""


class _Array:
    """What stands in for NumPy's array type, of which a pickle could make one of any size."""


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
    """An unpickler that knows the names above and no others."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _NAMES:
            raise UserError(
                f"it asks for {module}.{name}, which a hand model has no need of; nothing of it was run. Get the file "
                "from its source again"
            )
        return _NAMES[module, name]

    def persistent_load(self, pid: Any) -> Any:
        raise UserError(f"it refers to something outside of it ({pid!r}), which a hand model has no need of")


def _plain(value: Any) -> Any:
    """Stand-ins as arrays."""
    if isinstance(value, (_Chumpy, _Select, _Sparse)):
        return value.array()
    return value
