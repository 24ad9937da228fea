"""What Lightning's Trainer lacks for our recipes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import lightning as L
import torch
from lightning.pytorch.callbacks import RichProgressBar, WeightAveraging
from torch import Tensor

from fastvit.data.sampling import seed_everything, seed_of
from fastvit.errors import UserError
from fastvit.model.classifier import FastViT
from fastvit.training.recipe import EmaOptions
from fastvit.weights.native import save

BEST, LAST = "best.safetensors", "last.safetensors"


class Ema(WeightAveraging):
    """Exponential moving average with an optional warm-up of the decay.

    Norm statistics are averaged like weights, so that they belong to the averaged model; integer counters are copied.
    During validation and after training the averaged model stands in for the trained one.
    """

    def __init__(self, options: EmaOptions) -> None:
        def average(averaged: Sequence[Tensor], current: Sequence[Tensor], count: Tensor | int) -> None:
            step = int(count)
            decay = min(options.decay, (1 + step) / (10 + step)) if options.warmup else options.decay
            if averaged[0].is_floating_point():
                torch._foreach_lerp_(list(averaged), list(current), 1 - decay)
            else:
                torch._foreach_copy_(list(averaged), list(current))

        super().__init__(multi_avg_fn=average)

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        # Lightning calls this before the model is on its device; the average belongs beside it.
        self._device = trainer.strategy.root_device
        super().setup(trainer, pl_module, stage)

    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Nothing yet: the averaged model stays in place until the callbacks that save it have seen the metrics."""

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        super().on_validation_epoch_end(trainer, pl_module)


class ProgressBar(RichProgressBar):
    """Lightning's bar, counting epochs from 1."""

    def _get_train_description(self, current_epoch: int) -> str:
        return f"epoch {current_epoch + 1}/{self.trainer.max_epochs}"


class SaveBest(L.Callback):
    """Keeps best.safetensors and last.safetensors in the run's folder, after every validation."""

    def __init__(self, out: Path, monitor: str = "val/top1") -> None:
        self.out, self.monitor = out, monitor
        self.best = float("-inf")

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.sanity_checking or not trainer.is_global_zero:
            return
        model = cast(FastViT, pl_module.model)
        metrics = {
            k.removeprefix("val/"): float(v) for k, v in trainer.callback_metrics.items() if k.startswith("val/")
        }
        save(model, self.out / LAST, metrics)
        value = float(trainer.callback_metrics[self.monitor])
        if value > self.best:
            self.best = value
            save(model, self.out / BEST, metrics)


class SeedSteps(L.Callback):
    """Seeds every step by its place in the run, so that a step's noise does not depend on what came before it."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        seed_everything(seed_of(self.seed, trainer.current_epoch, batch_idx, trainer.global_rank))


class StopOnNonFinite(L.Callback):
    """Ends a run whose loss is no longer finite, and says where."""

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if not torch.isfinite(outputs["loss"]):
            lr = trainer.optimizers[0].param_groups[0]["lr"]
            raise UserError(
                f"the loss is {float(outputs['loss'])} at step {trainer.global_step} (lr {lr:.2e}): lower optim.lr, "
                "set optim.clip, or use precision 32-true; the checkpoints in the run's folder are from before"
            )
