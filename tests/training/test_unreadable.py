"""What a run says of images that it could not read."""

from __future__ import annotations

from pathlib import Path

import lightning as L
import pytest
import torch

from fastvit.errors import UserError
from fastvit.model.preprocessing import Preprocessing
from fastvit.tasks.classification.data import ClassificationData, open_for_run
from fastvit.tasks.classification.module import ClassificationTask
from fastvit.training.unreadable import UnreadableImages
from tests.helpers import make_folder, tiny


def fit(root: Path, limit: int) -> UnreadableImages:
    def configure(model: torch.nn.Module, steps: int) -> torch.optim.Optimizer:
        return torch.optim.SGD(model.parameters(), lr=0.01)

    callback = UnreadableImages(limit, root / "unreadable.txt")
    data = ClassificationData(open_for_run(str(root)), Preprocessing((32, 32)), 4, num_workers=0)
    quiet = {
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    trainer = L.Trainer(
        accelerator="cpu", max_epochs=1, callbacks=[callback], limit_val_batches=0, num_sanity_val_steps=0, **quiet
    )
    trainer.fit(ClassificationTask(tiny(num_classes=2), configure=configure), data)
    return callback


def test_they_are_named_listed_and_limited(tmp_path: Path) -> None:
    root = make_folder(tmp_path, ("cat", "dog"), ("train", "val"))
    for name in ("cat/1.png", "dog/0.png"):
        (root / "train" / name).write_bytes(b"")
    with pytest.warns(
        UserWarning, match=r"2 unreadable training images replaced up to epoch 1: .*\.png, .*\.png \(listed"
    ):
        callback = fit(root, limit=2)
    listed = (root / "unreadable.txt").read_text().splitlines()
    assert sorted(Path(line.split("\t")[0]).parent.name for line in listed) == ["cat", "dog"]
    assert all("is not a readable image" in line for line in listed)
    resumed = UnreadableImages(2, root / "other.txt")
    resumed.load_state_dict(callback.state_dict())
    assert resumed.state_dict() == callback.state_dict()
    (root / "unreadable.txt").unlink()
    with pytest.raises(UserError, match=r"2 unreadable training images, more than max_unreadable \(1\)"):
        fit(root, limit=1)
    assert len((root / "unreadable.txt").read_text().splitlines()) == 2


def test_a_run_without_any_says_nothing(tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    root = make_folder(tmp_path, ("cat", "dog"), ("train", "val"))
    fit(root, limit=0)
    assert not (root / "unreadable.txt").exists()
    assert not [warning for warning in recwarn if "decoded" in str(warning.message)]
    with pytest.raises(UserError, match="max_unreadable must be at least 0"):
        UnreadableImages(-1, root / "unreadable.txt")
