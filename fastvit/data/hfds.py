"""Hugging Face datasets with an image column and a class column."""

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
    """Labeled images of a `datasets.Dataset`, decoded by `fastvit.data.images.read_image`.

    timm's reader is not used: it must be given the names of the columns, which are found here by their types.

    Args:
        table: the `datasets.Dataset`.
        name: prefix of the images' names, which are "NAME[INDEX]".
        classes: class names of a model, which the labels must follow, see `fastvit.data.classes.align_classes`.

    Raises:
        UserError: the table does not have exactly one column of images and one of classes, or a row has no class.
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
        """Decode an image as RGB."""
        file = self._table[index][self._image]
        return read_image(file["bytes"] or file["path"], self.name(index))

    def name(self, index: int) -> str:
        """Return the name of an image, "NAME[INDEX]"."""
        return f"{self._name}[{index}]"


def open_hfds(name: str, split: Split, classes: Sequence[str] | None = None) -> TableImages:
    """Open a split of a dataset on the Hub, or of a local folder of Parquet files or images.

    Args:
        name: name of the dataset on the Hub, or path of a folder.
        split: "train", or "test" for the validation images.
        classes: class names of a model, which the labels must follow, see `fastvit.data.classes.align_classes`.

    Raises:
        UserError: the package `datasets` is not installed, the dataset or the split was not found, or the table is not
            one of labeled images (see `TableImages`).
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
    """Return the only column of a type."""
    columns = [column for column, feature in features.items() if isinstance(feature, kind)]
    if len(columns) != 1:
        raise UserError(
            f"{name} must have exactly one column of type {kind.__name__}, but has {len(columns)} among {features}"
        )
    return columns[0]
