"""Hugging Face datasets, from local files."""

from __future__ import annotations

from pathlib import Path

import pytest

from fastvit.data.load import open_for_training, open_images
from fastvit.errors import UserError
from tests.helpers import make_folder

datasets = pytest.importorskip("datasets")


def test_a_folder_of_parquet_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Made by the library from a folder of images; columns of other names than usual, paths left out."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_OFFLINE", True)
    root = make_folder(tmp_path / "pictures", ("dog", "cat", "ape"), ("train",)) / "train"
    label = datasets.ClassLabel(names=["dog", "cat", "ape"])
    features = datasets.Features({"img": datasets.Image(), "fine_label": label, "id": datasets.Value("int64")})
    files = [(str(root / name / f"{i}.png"), name) for name in ("dog", "cat", "ape") for i in range(2)]
    columns = {"img": [f for f, _ in files], "fine_label": [n for _, n in files], "id": list(range(6))}
    (tmp_path / "parquet" / "data").mkdir(parents=True)
    table = datasets.Dataset.from_dict(columns, features=features)
    for split in ("train", "validation"):
        table.to_parquet(tmp_path / "parquet" / "data" / f"{split}-00000-of-00001.parquet")

    source = f"hfds/{tmp_path}/parquet"
    train, test = open_for_training(source)
    assert train.classes == test.classes == ("dog", "cat", "ape")
    assert list(train.labels) == [0, 0, 1, 1, 2, 2]
    assert [train.image(i).getpixel((0, 0)) for i in range(6)] == [(c, i, 0) for c in range(3) for i in range(2)]
    assert test.name(3) == f"{source}/validation[3]"
    assert list(open_images(source, "test", ("ape", "cow", "cat", "dog")).labels) == [3, 3, 2, 2, 0, 0]
    with pytest.raises(UserError, match="classes that the model does not have"):
        open_images(source, "test", ("ape", "cat"))
    half, other = open_for_training(source, val_fraction=0.5)
    assert list(half.labels) == list(other.labels) == [0, 1, 2]

    folders = open_images(f"hfds/{tmp_path}/pictures", "train")
    assert (folders.classes, list(folders.labels)) == (("ape", "cat", "dog"), [0, 0, 1, 1, 2, 2])
    with pytest.raises(UserError, match=r"has no val or .* split; it has 1: train"):
        open_images(f"hfds/{tmp_path}/pictures", "test")
    with pytest.raises(UserError, match="cannot open hfds/"):
        open_images(f"hfds/{tmp_path}/none", "train")
