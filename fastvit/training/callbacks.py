"""Callbacks for Lightning's Trainer: EMA, progress, logging, checkpoints, seeds, and a check for finite values."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any, cast

import lightning as L
import torch
from lightning.pytorch.callbacks import RichProgressBar, WeightAveraging
from torch import Tensor

from fastvit.console import print_line
from fastvit.data.sampling import seed_everything, seed_of
from fastvit.errors import UserError
from fastvit.model.task_model import TaskModel
from fastvit.runs.files import BEST, LAST
from fastvit.tasks.spec import TaskSpec
from fastvit.training.optim import weight_decay
from fastvit.training.options import EmaOptions, OptimOptions
from fastvit.weights.native import save


class Ema(WeightAveraging):
    """Exponential moving average (EMA) of the weights, with an optional warm-up of the EMA decay.

    Batch norm statistics are averaged like weights; integer counters are copied. The averaged model replaces the
    trained one during validation and after training.

    Args:
        options: section `ema` of the recipe.
        trained: file for the weights without EMA, written after every epoch; None writes none.
    """

    def __init__(self, options: EmaOptions, trained: Path | None = None) -> None:
        super().__init__()
        self.options = options
        self._trained = trained
        self._updates = self._latest_update_step = 0

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        # Lightning calls this before it moves the model to its device; the average must be on the same one.
        self._device = trainer.strategy.root_device
        super().setup(trainer, pl_module, stage)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        assert self._average_model is not None
        self._updates = int(self._average_model.n_averaged)

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.global_step > self._latest_update_step:
            self._update(pl_module)
            self._latest_update_step = trainer.global_step

    @torch.no_grad()
    def _update(self, pl_module: L.LightningModule) -> None:
        """Update the average; AveragedModel's own update waits for the device at every step, to read a counter."""
        assert self._average_model is not None
        averaged, current = _tensors(self._average_model.module), _tensors(pl_module)
        floats = [pair for pair in zip(averaged, current, strict=True) if pair[0].is_floating_point()]
        others = [pair for pair in zip(averaged, current, strict=True) if not pair[0].is_floating_point()]
        step = self._updates
        decay = min(self.options.decay, (1 + step) / (10 + step)) if self.options.warmup else self.options.decay
        torch._foreach_lerp_([a for a, _ in floats], [c for _, c in floats], 1 - decay if step else 1.0)
        for average, value in others:
            average.copy_(value)
        self._average_model.n_averaged += 1
        self._updates += 1

    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Do nothing: the averaged model must stay in place until the callbacks that save it have run."""

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        super().on_validation_epoch_end(trainer, pl_module)
        if self._trained and trainer.is_global_zero:
            save(cast(TaskModel, pl_module.model), self._trained)


def _tensors(module: torch.nn.Module) -> list[Tensor]:
    return [tensor.detach() for tensor in (*module.parameters(), *module.buffers())]


class Speed:
    """Meter of training images per second."""

    def __init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        """Set the count and the time to zero."""
        self._since, self.images = time.perf_counter(), 0

    def add(self, batch: Any, trainer: L.Trainer) -> None:
        """Count the images of a batch, for all processes."""
        self.images += len(batch[0]) * trainer.world_size

    def now(self) -> float:
        """Return the images per second since `restart`."""
        return self.images / (time.perf_counter() - self._since)


class ProgressBar(RichProgressBar):
    """Lightning's progress bar, with epochs counted from 1, learning rate and training images per second.

    Args:
        every: number of steps between updates of the metrics; an update waits for the device.
    """

    def __init__(self, every: int = 1) -> None:
        super().__init__()
        self._every = every
        self._speed = Speed()

    def on_train_epoch_start(self, trainer: L.Trainer, *rest: Any) -> None:
        super().on_train_epoch_start(trainer, *rest)
        self._speed.restart()

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self._speed.add(batch, trainer)
        if (batch_idx + 1) % self._every == 0 or trainer.is_last_batch:
            super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)

    def get_metrics(self, trainer: L.Trainer, pl_module: L.LightningModule) -> dict[str, Any]:
        items: dict[str, Any] = super().get_metrics(trainer, pl_module)
        items.pop("v_num", None)
        if trainer.training and self._speed.images:
            items["lr"] = f"{_learning_rate(trainer):.1e}"
            items["images/s"] = f"{self._speed.now():.0f}"
        return items

    def _get_train_description(self, current_epoch: int) -> str:
        return f"epoch {current_epoch + 1}/{self.trainer.max_epochs}"


class PrintEpochs(L.Callback):
    """Prints a line after each validation: the epoch, the training loss and the validation metrics.

    It replaces the progress bar in Jupyter, where the bar of rich needs ipywidgets and is not kept in the notebook.

    Args:
        task: its metrics.
    """

    def __init__(self, task: TaskSpec) -> None:
        self._task = task

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if not trainer.is_global_zero:
            return
        logged = trainer.callback_metrics
        values = {name.removeprefix("val/"): float(v) for name, v in logged.items() if name.startswith("val/")}
        metrics = {name: metric for name, metric in self._task.metrics.items() if name in values}
        parts = [f"training loss {float(logged['train/loss_epoch']):.4f}"]
        parts += [f"validation {metric.label} {metric.text(values[name])}" for name, metric in metrics.items()]
        print_line(f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}: {', '.join(parts)}")


class LogSteps(L.Callback):
    """Logger of loss, learning rate and training images per second.

    Args:
        every: number of optimizer steps between log entries.
    """

    def __init__(self, every: int) -> None:
        self.every = every
        self._speed = Speed()
        self._seen = 0

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._seen = trainer.global_step

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._speed.restart()

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self._speed.add(batch, trainer)
        # The last step of an epoch may accumulate fewer batches: only the count shows whether this batch ended a step.
        before, self._seen = self._seen, trainer.global_step
        if self._seen == before or self._seen % self.every:
            return
        loss = trainer.strategy.reduce(outputs["loss"].detach().clone(), reduce_op="mean")
        values = {
            "epoch": trainer.current_epoch,
            "train/loss": float(loss) * trainer.accumulate_grad_batches,
            "train/lr": _learning_rate(trainer),
            "train/images_per_second": self._speed.now(),
            **{f"train/{name}": float(value) for name, value in outputs.items() if name != "loss"},
        }
        for logger in trainer.loggers:
            logger.log_metrics(values, step=trainer.global_step - 1)  # Lightning counts from 0
        self._speed.restart()


def _learning_rate(trainer: L.Trainer) -> float:
    """Return the learning rate of the head: the recipe's; with layer decay the other layers have lower ones."""
    return float(max(group["lr"] for group in trainer.optimizers[0].param_groups))


class SaveBest(L.Callback):
    """Writer of best.safetensors and last.safetensors, after every validation.

    Args:
        out: folder of the run.
        task: task whose headline metric decides which weights are best.

    Attributes:
        score: headline metric of the best weights, NaN if it could not be measured; None before the first validation.
    """

    def __init__(self, out: Path, task: TaskSpec) -> None:
        self.out, self._task = out, task
        self.score: float | None = None

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        value = float(trainer.callback_metrics[f"val/{self._task.headline}"])
        # Best weights are written even if there is nothing to measure.
        better = self.score is None or self._better(value, self.score)
        self.score = value if better else self.score
        if not trainer.is_global_zero:
            return
        model = cast(TaskModel, pl_module.model)
        metrics = {
            k.removeprefix("val/"): float(v) for k, v in trainer.callback_metrics.items() if k.startswith("val/")
        }
        save(model, self.out / LAST, metrics)
        if better:
            save(model, self.out / BEST, metrics)

    def _better(self, value: float, than: float) -> bool:
        if math.isnan(value) or math.isnan(than):
            return not math.isnan(value)
        return value < than if self._task.headline_metric.lower_is_better else value > than

    def state_dict(self) -> dict[str, Any]:
        return {"score": self.score}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.score = state_dict["score"]


class SeedSteps(L.Callback):
    """Seed of the random numbers of each training step, so that they do not depend on earlier steps.

    Args:
        seed: seed of the run; with epoch, batch and process it determines the seed of the step.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        seed_everything(seed_of(self.seed, trainer.current_epoch, batch_idx, trainer.global_rank))


class DecayWeights(L.Callback):
    """Schedule of the weight decay, for recipes in which it changes over the run.

    Args:
        options: section `optim` of the recipe.
    """

    def __init__(self, options: OptimOptions) -> None:
        self.options = options

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        steps = int(trainer.estimated_stepping_batches)
        for group in trainer.optimizers[0].param_groups:
            if group["weight_decay"]:
                group["weight_decay"] = weight_decay(trainer.global_step, steps, self.options)


class StopOnNonFinite(L.Callback):
    """Check that ends a run when the loss is NaN or infinite, with the step in the error.

    Args:
        every: number of steps between checks; a check waits for the device and reports the first bad step.
        checkpoint: file that the error gives as the last good checkpoint, if it exists.
    """

    def __init__(self, every: int = 1, checkpoint: Path | None = None) -> None:
        self.every, self.checkpoint = every, checkpoint
        self._seen: list[tuple[int, float, Tensor]] = []

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        last = trainer.fit_loop.epoch_loop.batch_progress.is_last_batch
        self._seen.append((trainer.global_step, _learning_rate(trainer), outputs["loss"].detach()))
        if len(self._seen) < self.every and not last:
            return
        seen, self._seen = self._seen, []
        finite = torch.stack([loss for *_, loss in seen]).isfinite().tolist()
        for (step, lr, loss), good in zip(seen, finite, strict=True):
            if not good:
                raise _diverged(f"the loss is {float(loss)}", step, lr, self.checkpoint)
        # The validation that follows saves the weights, which the last step may have made non-finite at a finite loss.
        if last:
            refuse_non_finite(trainer, pl_module, self.checkpoint)


def refuse_non_finite(trainer: L.Trainer, module: torch.nn.Module, checkpoint: Path | None) -> None:
    """Raise an error if weights or batch norm statistics are NaN or infinite; waits for the device and all processes.

    Args:
        trainer: trainer of the run.
        module: module that is about to be saved.
        checkpoint: file that the error gives as the last good checkpoint, if it exists.

    Raises:
        UserError: a value is not finite in one of the processes; all of them raise the error.
    """
    tensors = [tensor for tensor in (*module.parameters(), *module.buffers()) if tensor.is_floating_point()]
    finite = bool(torch.stack([tensor.isfinite().all() for tensor in tensors]).all())
    if not trainer.strategy.reduce_boolean_decision(finite, all=True):
        what = "weights or batch norm statistics are no longer finite"
        raise _diverged(what, trainer.global_step, _learning_rate(trainer), checkpoint)


def _diverged(what: str, step: int, lr: float, checkpoint: Path | None) -> UserError:
    good = checkpoint and checkpoint.exists()
    return UserError(
        f"{what} at step {step} (learning rate {lr:.2e}): lower optim.lr, set optim.clip_grad, or use "
        "precision 32-true; "
        + (f"the last good checkpoint is {checkpoint}" if good else "no checkpoint was saved before it")
    )
