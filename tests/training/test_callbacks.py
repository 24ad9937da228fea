"""What we add to the Trainer."""

from __future__ import annotations

import csv
import itertools
import random
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import lightning as L
import numpy as np
import pytest
import torch
from lightning.pytorch.loggers import CSVLogger
from torch.utils.data import DataLoader, TensorDataset

import fastvit
from fastvit.errors import UserError
from fastvit.tasks.classification.module import ClassificationTask
from fastvit.tasks.table import find_task
from fastvit.training.callbacks import Ema, LogSteps, SaveBest, SeedSteps, Speed, StopOnNonFinite
from fastvit.training.options import EmaOptions
from fastvit.weights.native import describe
from fastvit.weights.source import read
from tests.helpers import Clock, tiny


def fit(
    callback: L.Callback, images: torch.Tensor, epochs: int = 2, saver: SaveBest | None = None, accumulate: int = 1
) -> ClassificationTask:
    def configure(model: torch.nn.Module, steps: int) -> torch.optim.Optimizer:
        return torch.optim.SGD(model.parameters(), lr=0.05)

    task = ClassificationTask(tiny(num_classes=2), configure=configure)
    data = TensorDataset(images, torch.arange(len(images)) % 2)
    trainer = L.Trainer(
        accelerator="cpu",
        max_epochs=epochs,
        accumulate_grad_batches=accumulate,
        callbacks=[*([saver] if saver else []), callback],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )
    trainer.fit(task, DataLoader(data, 4), DataLoader(data, 4) if saver else None)
    return task


class Recorder(Ema):
    """Ema, with every state of the trained model kept for comparison."""

    def __init__(self, options: EmaOptions) -> None:
        super().__init__(options)
        self.states: list[dict[str, torch.Tensor]] = []

    def on_train_batch_end(self, trainer, pl_module, *rest) -> None:
        super().on_train_batch_end(trainer, pl_module, *rest)
        self.states.append({k: v.clone() for k, v in pl_module.model.state_dict().items()})


@pytest.mark.parametrize(("warmup", "accumulate"), [(True, 1), (False, 1), (False, 2)])
def test_ema_by_hand_with_norm_statistics(warmup: bool, accumulate: int) -> None:
    """Of the states after each step of the optimizer, which may take several batches."""
    recorder = Recorder(EmaOptions(decay=0.6, warmup=warmup))
    images = torch.randn(8, 3, 32, 32) * torch.logspace(-2, 2, 8).view(-1, 1, 1, 1)  # statistics of batches differ
    task = fit(recorder, images, epochs=3, accumulate=accumulate)
    states = recorder.states[accumulate - 1 :: accumulate]
    expected = dict(states[0])
    for step, state in enumerate(states[1:], start=1):
        decay = min(0.6, (1 + step) / (10 + step)) if warmup else 0.6
        for key, value in state.items():
            expected[key] = decay * expected[key] + (1 - decay) * value if value.is_floating_point() else value
    assert any("running_var" in key for key in expected)
    for key, value in task.model.state_dict().items():
        torch.testing.assert_close(value, expected[key], rtol=1e-5, atol=1e-7, msg=key)


def test_what_is_saved_is_the_average(tmp_path: Path) -> None:
    """Trained weights jump, the average stays at the first ones: the file must hold the average."""
    live: list[torch.Tensor] = []

    class Frozen(Ema):
        def on_train_batch_end(self, trainer, pl_module, *rest) -> None:
            super().on_train_batch_end(trainer, pl_module, *rest)
            live.append(pl_module.model.head.weight.detach().clone())

        def on_train_end(self, trainer, pl_module) -> None:
            assert torch.equal(pl_module.model.head.weight, live[-1]), "training went on with its own weights"
            super().on_train_end(trainer, pl_module)

    images = torch.randn(8, 3, 32, 32)
    saver = SaveBest(tmp_path, find_task("classification"))
    task = fit(Frozen(EmaOptions(decay=1.0, warmup=False)), images, saver=saver)
    saved = fastvit.load(tmp_path / "last.safetensors")
    assert torch.equal(saved.head.weight, live[0])
    assert not torch.equal(saved.head.weight, live[-1])
    assert torch.equal(task.model.head.weight, live[0])
    assert (tmp_path / "best.safetensors").exists()


def test_norm_statistics_that_are_not_finite_end_the_run() -> None:
    class Spoil(StopOnNonFinite):
        def on_train_batch_end(self, trainer, pl_module, *rest) -> None:
            next(b for n, b in pl_module.named_buffers() if n.endswith("running_var")).fill_(float("inf"))
            super().on_train_batch_end(trainer, pl_module, *rest)

    with pytest.raises(UserError, match="batch norm statistics are no longer finite at step 2"):
        fit(Spoil(), torch.randn(8, 3, 32, 32))


def test_a_loss_that_is_not_finite_ends_the_run() -> None:
    images = torch.randn(8, 3, 32, 32)
    images[5] = float("nan")
    with pytest.raises(UserError, match=r"loss is nan at step 2 \(learning rate 5.00e-02\).*optim.lr"):
        fit(StopOnNonFinite(), images)


@pytest.mark.parametrize(
    ("task", "values", "best"),
    [
        ("segmentation", (0.1, 0.3, 0.2), 0.3),
        ("hand_mesh", (30.0, 10.0, 20.0), 10.0),
        ("hand_mesh", (float("nan"), 20.0, float("nan")), 20.0),
        ("segmentation", (float("nan"), 0.0, -0.1), 0.0),
    ],
)
def test_the_best_is_what_its_task_says(task: str, values: tuple[float, ...], best: float, tmp_path: Path) -> None:
    kind = find_task(task)
    saver = SaveBest(tmp_path, kind)
    module = L.LightningModule()
    module.model = tiny()
    for value in values:
        trainer = SimpleNamespace(callback_metrics={f"val/{kind.headline}": value}, is_global_zero=True)
        saver.on_validation_end(trainer, module)
    assert saver.score == best
    assert describe(read(tmp_path / "best.safetensors")).metrics[kind.headline] == best
    again = SaveBest(tmp_path, kind)
    again.load_state_dict(saver.state_dict())
    assert again.score == best


@pytest.mark.parametrize("task", ["segmentation", "hand_mesh"])
def test_of_equal_ones_the_first_is_the_best(task: str, tmp_path: Path) -> None:
    kind = find_task(task)
    saver, module = SaveBest(tmp_path, kind), L.LightningModule()
    module.model = tiny()
    for epoch in range(2):
        metrics = {f"val/{kind.headline}": 0.5, "val/epoch": float(epoch)}
        saver.on_validation_end(SimpleNamespace(callback_metrics=metrics, is_global_zero=True), module)
    assert [describe(read(tmp_path / f"{name}.safetensors")).metrics["epoch"] for name in ("best", "last")] == [0, 1]


class Timed(ClassificationTask):
    """Whose steps take time, and whose validation takes a lot; it notes the loss of every batch."""

    def __init__(self, step: Callable[[], None], validation: Callable[[], None]) -> None:
        def configure(model: fastvit.FastViT, steps: int) -> torch.optim.Optimizer:
            groups = [{"params": model.backbone.parameters(), "lr": 0.01}, {"params": model.head.parameters()}]
            return torch.optim.SGD(groups, lr=0.05)

        super().__init__(tiny(num_classes=2), configure=configure)
        self._takes, self._takes_to_validate = step, validation
        self.noted: list[float] = []

    def training_step(self, batch, batch_idx):
        self._takes()
        outputs = super().training_step(batch, batch_idx)
        self.noted.append(float(outputs["loss"] if isinstance(outputs, dict) else outputs))
        return outputs

    def validation_step(self, batch, batch_idx):
        self._takes_to_validate()
        return super().validation_step(batch, batch_idx)


def test_every_second_step_is_logged_by_hand(clock: Clock, tmp_path: Path) -> None:
    """Five batches of two images, whose gradients are added up in twos: three steps an epoch, the last of one batch.

    Steps 2, 4, 6 and 8 end with batch 4 of the first epoch, 2 and 5 of the second, and 4 of the last.
    Batches take 1, 2, 3, 4 and 5 s; speeds count what came since the last log, or since the epoch began.
    """
    task = Timed(clock.takes(1, 2, 3, 4, 5), clock.takes(1000))
    data = TensorDataset(torch.randn(10, 3, 32, 32), torch.arange(10) % 2)
    trainer = L.Trainer(
        accelerator="cpu",
        max_epochs=3,
        accumulate_grad_batches=2,
        callbacks=[LogSteps(2)],
        logger=CSVLogger(tmp_path, name="", version=""),
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )
    trainer.fit(task, DataLoader(data, 2), DataLoader(data, 10))
    with (tmp_path / "metrics.csv").open() as file:
        logged = [row for row in csv.DictReader(file) if row["train/images_per_second"]]
    assert [(int(row["epoch"]), int(row["step"])) for row in logged] == [(0, 1), (1, 3), (1, 5), (2, 7)]
    speeds = [8 / (1 + 2 + 3 + 4), 4 / (1 + 2), 6 / (3 + 4 + 5), 8 / (1 + 2 + 3 + 4)]
    assert [float(row["train/images_per_second"]) for row in logged] == pytest.approx(speeds)
    losses = [task.noted[5 * epoch + batch] for epoch, batch in ((0, 3), (1, 1), (1, 4), (2, 3))]
    assert [float(row["train/loss"]) for row in logged] == pytest.approx(losses, rel=1e-5)
    assert [float(row["train/lr"]) for row in logged] == [0.05] * 4


def test_a_resumed_run_logs_the_same_steps(clock: Clock, tmp_path: Path) -> None:
    """Also where the step that was made last, before it began, is one to log."""
    logged = LogSteps(3)
    trainer = SimpleNamespace(global_step=3, current_epoch=1, world_size=1, accumulate_grad_batches=4)
    clock.now += 1
    logged.on_train_start(trainer, L.LightningModule())
    logged.on_train_batch_end(trainer, L.LightningModule(), {}, (torch.zeros(2),), 0)  # would need a loss to log


def test_images_of_all_processes_are_counted(clock: Clock) -> None:
    speed = Speed()
    for count in (4, 3):
        speed.add((torch.zeros(count, 3, 8, 8), torch.zeros(count)), SimpleNamespace(world_size=5))
    clock.now += 0.5
    assert speed.now() == (4 + 3) * 5 / 0.5


def test_a_steps_noise_follows_from_its_place() -> None:
    """Of Python, NumPy and torch, whatever was drawn before; other for each seed, epoch, batch and process."""

    def drawn(seed: int, epoch: int, batch: int, rank: int) -> tuple[float, float, float]:
        trainer = SimpleNamespace(current_epoch=epoch, global_rank=rank)
        SeedSteps(seed).on_train_batch_start(trainer, L.LightningModule(), None, batch)
        return random.random(), np.random.rand(), float(torch.rand(()))

    places = list(itertools.product(range(2), repeat=4))
    first = [drawn(*place) for place in places]
    assert [drawn(*place) for place in reversed(places)] == first[::-1]
    for numbers in zip(*first, strict=True):
        assert len(set(numbers)) == len(places)
