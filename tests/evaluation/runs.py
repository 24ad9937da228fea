"""Folders as training leaves them, made without training."""

from __future__ import annotations

import json
from pathlib import Path

import yaml

import fastvit
from tests.helpers import tiny

HEADER = "epoch,train/lr,step,train/loss_epoch,train/loss,val/loss,val/top1,val/top5"


def make_run(folder: Path, epochs: int = 2, top1: float = 0.5, **settings: object) -> Path:
    """A run of ten steps an epoch, on images of 32 pixels."""
    folder.mkdir(parents=True)
    model = tiny(num_classes=3, classes=["cat", "dog", "cow"], preprocessing=fastvit.Preprocessing((32, 32)))
    fastvit.save(model, folder / "best.safetensors", {"loss": 0.75, "top1": top1})
    recipe = {"data": "photos", "epochs": epochs, "batch_size": 16, "out": str(folder), **settings}
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    rows = [HEADER]
    for epoch in range(epochs):
        last = 10 * epoch + 9
        rows += [f",{0.1 / (epoch + 1)},{last - 5},,,,,", f"{epoch},,{last},,2.5,,,"]
        rows += [
            f"{epoch},,{last},,,{1.5 - epoch / 10},{top1 - 0.1 * (epochs - epoch - 1)},",
            f"{epoch},,{last},2.0,,,,",
        ]
    (folder / "metrics.csv").write_text("\n".join(rows) + "\n")
    (folder / "environment.json").write_text(json.dumps({"torch": "9.9.9", "GPU": "a very fast one"}))
    return folder
