"""Images that cannot be decoded, in training and in evaluation."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch

from fastvit.data.augmentation import Augmentation
from fastvit.data.datasets import IGNORED, ImageDataset, samples_for_evaluation
from fastvit.data.folders import FolderImages
from fastvit.data.module import evaluation_loader
from fastvit.data.sampling import SampleIndex
from fastvit.data.transforms import eval_pixels
from fastvit.data.unreadable import UnreadableLog, note
from fastvit.errors import UserError
from fastvit.model.preprocessing import Preprocessing
from fastvit.tasks.classification.data import ClassificationData, open_for_run
from tests.helpers import make_folder

SMALL = Preprocessing((8, 8))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Four images to train on, of which the second is a letter and the third is cut short; four to validate on."""
    root = make_folder(tmp_path, ("cat", "dog"), ("train", "val"))
    (root / "train" / "cat" / "1.png").write_text("Dear Sir or Madam")
    whole = (root / "train" / "dog" / "0.png").read_bytes()
    (root / "train" / "dog" / "0.png").write_bytes(whole[: len(whole) // 2])
    return root


@pytest.mark.parametrize("num_workers", [0, 2])
def test_the_next_image_stands_in(folder: Path, num_workers: int) -> None:
    plain = Augmentation((1, 1), (1, 1), 0.0, 0.0, "", 0.0)
    data = ClassificationData(open_for_run(str(folder)), SMALL, 4, plain, num_workers=num_workers)
    assert data.unreadable == {}
    for _ in range(2):
        ((images, labels),) = data.train_dataloader()
        assert sorted(zip(images[:, 0, 0, 0].tolist(), labels.tolist(), strict=True)) == [
            (0, 0),
            (1, 1),
            (1, 1),
            (1, 1),
        ]
        assert sorted(images[:, 1, 0, 0].tolist()) == [0, 1, 1, 1]
    unreadable = {Path(name).parts[-2:]: reason for name, reason in data.unreadable.items()}
    assert unreadable.keys() == {("cat", "1.png"), ("dog", "0.png")}
    assert "is not a readable image" in unreadable["cat", "1.png"]
    assert "0.png" in unreadable["dog", "0.png"]


def test_the_dataset_travels_to_a_spawned_process(folder: Path) -> None:
    log = UnreadableLog()
    dataset = ImageDataset(FolderImages(folder / "train"), eval_pixels(SMALL), log.path)
    image, label = pickle.loads(pickle.dumps(dataset))[SampleIndex(1, 0)]
    assert (image[1, 0, 0], label) == (1, 1)
    assert len(log.read()) == 2


def test_nothing_but_unreadable_images(folder: Path) -> None:
    log = UnreadableLog()
    for path in (folder / "train").rglob("*.png"):
        path.write_bytes(b"")
    with pytest.raises(UserError, match=r"100 training images in a row are unreadable.*not a readable image"):
        ImageDataset(FolderImages(folder / "train"), eval_pixels(SMALL), log.path)[SampleIndex(0, 0)]
    assert len(log.read()) == 4


def test_evaluation_wants_every_image_unless_told(folder: Path) -> None:
    pictures = FolderImages(folder / "train")
    with pytest.raises(UserError, match=r"1.png is not a readable image"):
        list(evaluation_loader(samples_for_evaluation(pictures, SMALL), 64, 0))
    with pytest.warns(UserWarning, match=r".png .*; it is skipped") as seen:
        ((images, labels),) = evaluation_loader(samples_for_evaluation(pictures, SMALL, True), 64, 0)
    assert sum(warning.category is UserWarning for warning in seen) == 2
    assert labels.tolist() == [0, IGNORED, IGNORED, 1]
    assert torch.equal(images[1], torch.zeros(3, 8, 8, dtype=torch.uint8))


def test_a_log_is_read_as_it_grows() -> None:
    log = UnreadableLog()
    note(log.path, "a", "broken")
    assert log.read() == {"a": "broken"}
    with log.path.open("a") as opened:
        opened.write('["b", "bro')
    assert log.read() == {"a": "broken"}, "a line that is being written waits"
    with log.path.open("a") as opened:
        opened.write('ken"]\n')
    assert log.read() == {"a": "broken", "b": "broken"}
