"""Holding out validation images."""

from __future__ import annotations

import csv
import os
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from fastvit.data.arrays import ArrayImages
from fastvit.data.datasets import LabeledImages
from fastvit.data.folders import FolderImages
from fastvit.data.load import open_for_training
from fastvit.data.splitting import Part, split_off, validation_mask, write_split
from fastvit.errors import UserError
from tests.helpers import make_folder

LABELS = [0] * 40 + [1] * 20 + [2] * 3 + [3]


def pictures(labels: list[int]) -> ArrayImages:
    return ArrayImages(np.arange(len(labels), dtype=np.uint8).reshape(-1, 1, 1), labels, "abcd", "made up")


def names(part: LabeledImages) -> list[str]:
    return [part.name(i) for i in range(len(part))]


def test_every_class_keeps_its_share() -> None:
    mask = validation_mask(LABELS, 0.25, seed=0)
    assert Counter(np.array(LABELS)[mask].tolist()) == {0: 10, 1: 5, 2: 1}, "of a single image none is held out"
    assert Counter(np.array(LABELS)[validation_mask(LABELS, 0.01, 0)].tolist()) == {0: 1, 1: 1, 2: 1}
    assert Counter(np.array(LABELS)[validation_mask(LABELS, 0.99, 0)].tolist()) == {0: 39, 1: 19, 2: 2}
    assert np.array_equal(mask, validation_mask(LABELS, 0.25, seed=0))
    assert not np.array_equal(mask, validation_mask(LABELS, 0.25, seed=1))
    for fraction in (-0.1, 1.0, 2.0):
        with pytest.raises(UserError, match="val_fraction must be above 0 and below 1"):
            validation_mask(LABELS, fraction, 0)
    with pytest.raises(UserError, match="every class has only one"):
        validation_mask([0, 1], 0.5, 0)


def test_parts_are_the_images_between_them() -> None:
    whole = pictures(LABELS)
    train, validation = split_off(whole, 0.25, seed=0)
    assert sorted(names(train) + names(validation)) == sorted(names(whole))
    for part in (train, validation):
        assert part.classes == whole.classes
        for i in range(len(part)):
            value = part.image(i).getpixel((0, 0))[0]
            assert part.name(i) == f"made up[{value}]"
            assert part.labels[i] == LABELS[value]


def test_the_split_is_written_and_read_back(tmp_path: Path) -> None:
    file = tmp_path / "run" / "split.csv"
    parts = split_off(pictures(LABELS), 0.25, 0)
    write_split(file, parts[1])
    first = [names(part) for part in parts]
    with file.open(newline="") as opened:
        rows = list(csv.DictReader(opened))
    assert [row["image"] for row in rows if row["split"] == "val"] == first[1]
    assert rows[45] == {"image": "made up[45]", "class": "b", "split": rows[45]["split"]}
    again = [names(part) for part in split_off(pictures(LABELS), 0.25, 99, file)]
    assert again == first, "whatever the seed"
    with pytest.raises(UserError, match=r"lists 16 validation images, but a val_fraction of 0.5 gives 32"):
        split_off(pictures(LABELS), 0.5, 0, file)
    with pytest.raises(UserError, match=r"0 were added, 4 removed since \(4: made up\[60\]"):
        split_off(pictures(LABELS[:60]), 0.25, 0, file)
    with pytest.raises(UserError, match=r"1 were added, 0 removed since \(1: made up\[64\]\)"):
        split_off(pictures([*LABELS, 3]), 0.25, 0, file)
    file.write_text("letters")
    with pytest.raises(UserError, match="does not contain a split .*: restore it, or start a new run"):
        split_off(pictures(LABELS), 0.25, 0, file)
    file.unlink()
    with pytest.raises(UserError, match=r"split\.csv, .*, does not exist: restore it, or start a new run"):
        split_off(pictures(LABELS), 0.25, 0, file)


def test_folders_without_a_split(tmp_path: Path) -> None:
    root = make_folder(tmp_path, ("cat", "dog"), ("train",))
    for source in (root, root / "train"):
        train, validation = open_for_training(source, val_fraction=0.5)
        assert (train.labels, validation.labels) == ([0, 1], [0, 1])
        assert not set(names(train)) & set(names(validation))
    make_folder(root, ("cat", "dog"), ("val",))
    with pytest.raises(UserError, match=r"val contains validation images: set val_fraction to 0"):
        open_for_training(root, val_fraction=0.5)
    assert len(open_for_training(root)[1]) == 4


def test_a_named_sets_training_images_are_split() -> None:
    train, validation = open_for_training("sample", val_fraction=0.1)
    assert (len(train), len(validation)) == (4950, 550)
    assert set(Counter(validation.labels).values()) == {55}


def test_a_split_holds_where_the_folder_is_moved(tmp_path: Path) -> None:
    folder, file = make_folder(tmp_path / "here", ("a", "b"), ("",)), tmp_path / "split.csv"
    parts = open_for_training(folder, 0.5, 0)
    assert isinstance(parts[1], Part)
    write_split(file, parts[1])
    assert (tmp_path / "here").as_posix() not in file.read_text()
    moved = folder.rename(tmp_path / "there")
    again = open_for_training(moved, 0.5, 99, file)
    assert [names(part) for part in again] == [
        [name.replace("/here/", "/there/") for name in names(part)] for part in parts
    ]


def test_names_that_are_not_utf8_are_written_and_read(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "data", ("a", "b"), ("train",)) / "train"
    for name in ("a", "b"):
        shutil.copy(folder / name / "0.png", folder / name / os.fsdecode(b"caf\xe9.png"))
    train, validation = split_off(FolderImages(folder), 0.5, 0, root=folder)
    write_split(tmp_path / "split.csv", validation)
    again = split_off(FolderImages(folder), 0.5, 1, tmp_path / "split.csv", folder)
    assert [part.indices for part in again] == [train.indices, validation.indices]
