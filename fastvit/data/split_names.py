"""Names of the training and validation splits, for all data sources."""

from __future__ import annotations

from typing import Literal

Split = Literal["train", "test"]

# If several names of a split exist in the data, the first one counts: a "test" part may lack labels.
SPLIT_NAMES: dict[Split, tuple[str, ...]] = {
    "train": ("train", "training"),
    "test": ("val", "valid", "validation", "test", "testing"),
}
SPLIT_TITLES: dict[Split, str] = {"train": "training", "test": "validation"}


def listed_names(split: Split) -> str:
    """Return the names of a split as text, such as "train or training"."""
    *first, last = SPLIT_NAMES[split]
    return f"{', '.join(first)} or {last}"
