"""Small real runs for the tests of training: forty images in idx files, FastViT-T8 at 32 pixels."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import lightning as L
import numpy as np

from fastvit.data.idx import write_idx
from fastvit.training.options import Recipe
from fastvit.training.recipe import load_recipe


def make_data(root: Path, train: int = 40, test: int = 12) -> Path:
    """Gray images of three classes that differ in brightness."""
    root.mkdir()
    rng = np.random.default_rng(0)
    for prefix, count in (("train", train), ("t10k", test)):
        labels = (np.arange(count) % 3).astype(np.uint8)
        images = (rng.integers(0, 120, (count, 28, 28)) + labels[:, None, None] * 60).astype(np.uint8)
        write_idx(root / f"{prefix}-images-idx3-ubyte.gz", images)
        write_idx(root / f"{prefix}-labels-idx1-ubyte.gz", labels)
    return root


def options(data: Path, out: Path, *more: str) -> list[str]:
    """Options of a short run in which everything random is on."""
    return [
        *(f"--data={data}", f"--out={out}", "--device=cpu", "--model.size=32", "--model.drop_path=0.2"),
        *("--epochs=2", "--batch_size=8", "--optim.warmup_epochs=1", "--optim.lr=1e-3", "--checkpoint_every=2"),
        *("--mixup.mixup=0.2", "--mixup.cutmix=1", "--augmentation.random_erasing=0.5", "--ema.decay=0.9"),
        *more,
    ]


def recipe(data: Path, out: Path, *more: str) -> Recipe:
    return load_recipe("quickstart", *options(data, out, *more))


class SignalAt(L.Callback):
    """Sends this process a signal before a step, counted over the run from 0."""

    def __init__(self, step: int, number: int = signal.SIGKILL) -> None:
        self.step, self.number = step, number

    def on_train_batch_start(self, trainer: L.Trainer, *_: object) -> None:
        if trainer.global_step == self.step:
            os.kill(os.getpid(), self.number)
