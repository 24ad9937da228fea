"""The names under which data keep their splits, in one list for all sources."""

from __future__ import annotations

from typing import Literal

Split = Literal["train", "test"]

# Of a split that several names are there for, the first counts: a test part may be without labels.
SPLIT_NAMES: dict[Split, tuple[str, ...]] = {
    "train": ("train", "training"),
    "test": ("val", "valid", "validation", "test", "testing"),
}
