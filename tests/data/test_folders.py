"""Folders of images, a folder a class."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image
from torchvision.datasets import ImageFolder

from fastvit.data.folders import FolderImages
from fastvit.data.imagenet import imagenet_classes
from fastvit.data.load import open_images
from fastvit.errors import UserError
from tests.helpers import make_folder


@pytest.mark.parametrize("validation", ["val", "validation", "test"])
def test_image_folders(tmp_path: Path, validation: str) -> None:
    root = make_folder(tmp_path, ("cat", "dog"), ("train", validation))
    train, test = open_images(root, "train"), open_images(root, "test")
    assert train.classes == test.classes == ("cat", "dog")
    assert [train.image(i).getpixel((0, 0))[0] for i in range(4)] == list(train.labels) == [0, 0, 1, 1]
    assert Path(test.name(0)).parts[-3:] == (validation, "cat", "0.png")


def test_one_folder_a_class_is_enough_for_evaluation(tmp_path: Path) -> None:
    root = make_folder(tmp_path, ("cat", "dog"), ("only",)) / "only"
    assert len(open_images(root, "test")) == 4
    with pytest.raises(UserError, match="needs a folder train and one of val"):
        open_images(root, "train")
    (root / "train").mkdir()
    with pytest.raises(
        UserError, match=r"no validation folder \(val, .* or testing\): add one, or train with --val-fr"
    ):
        open_images(root, "test")
    (root / "train").rename(root / "val")
    with pytest.raises(UserError, match=r"no training folder \(train or training\): add one$"):
        open_images(root, "train")


def test_labels_follow_the_models_classes(tmp_path: Path) -> None:
    root = make_folder(tmp_path, ("cat", "dog"), ("val",))
    assert list(open_images(root, "test", ("dog", "cat")).labels) == [1, 1, 0, 0]
    assert list(open_images(root, "test", ("ape", "cat", "cow", "dog")).labels) == [1, 1, 3, 3]
    with pytest.raises(UserError, match=r"does not have \(1: dog\); the model has 2: cat, mouse; check"):
        open_images(root, "test", ("cat", "mouse"))
    with pytest.raises(UserError, match="differ from those of the model"):
        open_images("sample", "test", ("cat", "dog"))


def test_imagenet_folders_fit_the_released_heads(tmp_path: Path) -> None:
    root = make_folder(tmp_path, ("n01443537", "n15075141"), ("val",))
    pictures = open_images(root, "test", imagenet_classes())
    assert list(pictures.labels) == [1, 1, 999, 999]
    assert pictures.classes[1].startswith("goldfish")


def test_names_of_splits_in_any_case(tmp_path: Path) -> None:
    root = make_folder(tmp_path, ("cat", "dog"), ("Train", "VALIDATION", "test"))
    assert Path(open_images(root, "train").name(0)).parts[-3] == "Train"
    assert Path(open_images(root, "test").name(0)).parts[-3] == "VALIDATION", "before test, as its name says"


def test_nested_images_are_of_the_topmost_folder(tmp_path: Path) -> None:
    """As torchvision's ImageFolder has it."""
    root = make_folder(tmp_path, ("cat", "dog", "old"), ("train",)) / "train"
    (root / "old").rename(root / "dog" / "old")
    (root / "cat" / "2020" / "cat").mkdir(parents=True)
    Image.new("RGB", (8, 8)).save(root / "cat" / "2020" / "cat" / "deep.JPG")
    ours, theirs = FolderImages(root), ImageFolder(str(root))
    assert ours.classes == tuple(theirs.classes)
    assert sorted((ours.name(i), label) for i, label in enumerate(ours.labels)) == sorted(theirs.samples)


def test_hidden_and_homeless_files_do_not_count(tmp_path: Path) -> None:
    root = make_folder(tmp_path, ("cat", "dog"), ("train",)) / "train"
    (root / ".trash").mkdir()
    for name in (".trash/0.png", "cat/._0.png", "cover.png"):
        (root / name).touch()
    pictures = FolderImages(root)
    assert (pictures.classes, len(pictures)) == (("cat", "dog"), 4)
    (tmp_path / "flat").mkdir()
    (tmp_path / "flat" / "a.png").touch()
    with pytest.raises(UserError, match="no images in class folders"):
        FolderImages(tmp_path / "flat")
