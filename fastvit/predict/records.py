"""Predictions as records in a file: JSON Lines, or Parquet for millions of them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from fastvit.console import printable
from fastvit.errors import UserError
from fastvit.files import atomic
from fastvit.predict.prediction import Failure, Prediction

Write = Callable[[Prediction | Failure], None]
# Number of rows in memory before Parquet writes them.
GROUP = 4096


def record(prediction: Prediction | Failure) -> dict[str, Any]:
    """Return the record of an image: "image", and "predictions" in the task's format, best first, or "error"."""
    return (
        {"image": prediction.image, "error": prediction.reason}
        if isinstance(prediction, Failure)
        else prediction.record()
    )


@contextmanager
def recording(path: Path) -> Iterator[Write]:
    """Yield a function that writes predictions to a file; the file appears, complete, when the block succeeds.

    Args:
        path: .jsonl file, one `record` per line, or, for classifiers, .parquet file with the columns image, error,
            index, name and probability, the last three lists.

    Raises:
        UserError: the suffix is another one, pyarrow is not installed, or the file cannot be written.
    """
    writers = {".jsonl": _lines, ".parquet": _parquet}
    if path.suffix not in writers:
        raise UserError(f"{path} is not a .jsonl or .parquet file: give one of these")
    with atomic(path) as part, writers[path.suffix](part) as write:
        yield write


@contextmanager
def _lines(path: Path) -> Iterator[Write]:
    with path.open("w", encoding="utf-8") as opened:
        yield lambda prediction: print(json.dumps(record(prediction)), file=opened)


@contextmanager
def _parquet(path: Path) -> Iterator[Write]:
    if find_spec("pyarrow") is None:
        raise UserError('Parquet files need pyarrow: pip install "fastvit[parquet]", or give a .jsonl file')
    import pyarrow
    from pyarrow import parquet

    numbers, names = pyarrow.list_(pyarrow.float32()), pyarrow.list_(pyarrow.string())
    schema = pyarrow.schema(
        {
            "image": pyarrow.string(),
            "error": pyarrow.string(),
            "index": pyarrow.list_(pyarrow.int32()),
            "name": names,
            "probability": numbers,
        }
    )
    rows: list[dict[str, Any]] = []
    with parquet.ParquetWriter(path, schema) as writer:

        def flush() -> None:
            writer.write_table(pyarrow.Table.from_pylist(rows, schema))
            rows.clear()

        def write(prediction: Prediction | Failure) -> None:
            rows.append(_columns(prediction))
            if len(rows) >= GROUP:
                flush()

        yield write
        flush()


def _columns(prediction: Prediction | Failure) -> dict[str, Any]:
    if isinstance(prediction, Failure):
        return {"image": printable(prediction.image), "error": printable(prediction.reason)}
    return {"image": printable(prediction.image), **prediction.columns()}
