"""What we add to the Trainer."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import lightning as L
import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

import fastvit
from fastvit.errors import UserError
from fastvit.tasks.classification.module import ClassificationTask
from fastvit.tasks.table import find_task
from fastvit.training.callbacks import Ema, SaveBest, StopOnNonFinite
from fastvit.training.options import EmaOptions
from fastvit.weights.native import describe
from fastvit.weights.source import read
from tests.helpers import tiny


def fit(
    callback: L.Callback, images: torch.Tensor, epochs: int = 2, saver: SaveBest | None = None
) -> ClassificationTask:
    def configure(model: torch.nn.Module, steps: int) -> torch.optim.Optimizer:
        return torch.optim.SGD(model.parameters(), lr=0.05)

    task = ClassificationTask(tiny(num_classes=2), configure=configure)
    data = TensorDataset(images, torch.arange(len(images)) % 2)
    trainer = L.Trainer(
        accelerator="cpu",
        max_epochs=epochs,
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


@pytest.mark.parametrize("warmup", [True, False])
def test_ema_by_hand_with_norm_statistics(warmup: bool) -> None:
    recorder = Recorder(EmaOptions(decay=0.6, warmup=warmup))
    task = fit(recorder, torch.randn(8, 3, 32, 32), epochs=3)
    expected = dict(recorder.states[0])
    for step, state in enumerate(recorder.states[1:], start=1):
        decay = min(0.6, (1 + step) / (10 + step)) if warmup else 0.6
        for key, value in state.items():
            expected[key] = decay * expected[key] + (1 - decay) * value if value.is_floating_point() else value
    assert any("running_var" in key for key in expected)
    for key, value in task.model.state_dict().items():
        torch.testing.assert_close(value, expected[key], rtol=1e-4, atol=1e-5, msg=key)


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

    with pytest.raises(UserError, match="norm statistics are no longer finite at step 2"):
        fit(Spoil(), torch.randn(8, 3, 32, 32))


def test_a_loss_that_is_not_finite_ends_the_run() -> None:
    images = torch.randn(8, 3, 32, 32)
    images[5] = float("nan")
    with pytest.raises(UserError, match=r"loss is nan at step 2 \(lr 5.00e-02\).*optim.lr"):
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
