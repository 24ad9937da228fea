"""Hugging Face datasets with an image and a class in each row."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from typing import Any

from PIL import Image

from fastvit.data.classes import align_classes, shortened
from fastvit.data.images import read_image
from fastvit.data.split_names import SPLIT_NAMES, Split
from fastvit.errors import UserError, first_line


class TableImages:
    """Images and classes of a `datasets.Dataset`, decoded by `read_image`.

    Read with the library itself: timm's reader wants to be told the names of the columns, of which the features tell.

    Args:
        table: the rows.
        name: what to call them.
        classes: of a model, which the labels are to follow, as in `fastvit.data.classes.align_classes`.

    Raises:
        UserError: there are not one column of images and one of classes, or a row has no class.
    """

    def __init__(self, table: Any, name: str, classes: Sequence[str] | None = None) -> None:
        import datasets

        self._name = name
        self._image = _only(table.features, datasets.Image, name)
        label = _only(table.features, datasets.ClassLabel, name)
        self.classes, index = align_classes(table.features[label].names, classes, name)
        labels = table.select_columns([label])[:][label]
        if any(value is None or value < 0 for value in labels):
            raise UserError(f"{name} has rows without a class in the column {label}")
        self.labels = [index[value] for value in labels]
        self._table = table.select_columns([self._image]).cast_column(self._image, datasets.Image(decode=False))

    def __len__(self) -> int:
        return len(self.labels)

    def image(self, index: int) -> Image.Image:
        file = self._table[index][self._image]
        return read_image(file["bytes"] or file["path"], self.name(index))

    def name(self, index: int) -> str:
        return f"{self._name}[{index}]"


def open_hfds(name: str, split: Split, classes: Sequence[str] | None = None) -> TableImages:
    """A split of a dataset on the Hub, or of a local folder of parquet files or images.

    Raises:
        UserError: the library `datasets` is missing, there is no such dataset or split, or as TableImages has it.
    """
    if importlib.util.find_spec("datasets") is None:
        raise UserError('hfds/ needs the package datasets: pip install "fastvit[hfds]"')
    import datasets

    try:
        tables = datasets.load_dataset(name)
    except (OSError, ValueError, RuntimeError, datasets.exceptions.DatasetsError) as error:
        raise UserError(f"cannot open hfds/{name}: {first_line(error)}") from error
    found = next((each for each in SPLIT_NAMES[split] if each in tables), None)
    if found is None:
        raise UserError(f"hfds/{name} has no {' or '.join(SPLIT_NAMES[split])} split; it has {shortened(list(tables))}")
    return TableImages(tables[found], f"hfds/{name}/{found}", classes)


def _only(features: dict[str, Any], kind: type, name: str) -> str:
    """The one column of a kind."""
    columns = [column for column, feature in features.items() if isinstance(feature, kind)]
    if len(columns) != 1:
        raise UserError(f"{name} must have one column of type {kind.__name__}, it has {len(columns)} among {features}")
    return columns[0]
