"""Base class of the tasks: a LightningModule with a model, a loss and metrics."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import lightning as L
import torch
import torchmetrics
from torch import Tensor, nn

from fastvit.data.classes import shortened
from fastvit.data.transforms import normalize
from fastvit.errors import UserError
from fastvit.model.task_model import TaskModel

Configure = Callable[[nn.Module, int], Any]


class Task(L.LightningModule):
    """Base class of the tasks: the steps of Lightning's training loop, for a model, a loss and metrics.

    A task implements `loss`, or `losses` and `validate` if its network computes the losses. The metrics are updated and
    logged here under their own names.

    Args:
        model: model that is trained and saved; its preprocessing is used for the images.
        metrics: metrics on the validation images, updated with (outputs, targets) and logged as "val/NAME".
        configure: (model, number of optimizer steps) -> result of Lightning's configure_optimizers; None for
            evaluation only.
    """

    # Whether `validate` updates the loss. It must be the same in all processes, which compute the loss together.
    validates_loss = True

    def __init__(
        self, model: TaskModel, metrics: torchmetrics.MetricCollection, configure: Configure | None = None
    ) -> None:
        super().__init__()
        self.model: TaskModel = model
        self.metrics = metrics.clone(prefix="val/")
        # NaN is checked elsewhere; a check here would wait for the device at every step.
        self.train_loss = torchmetrics.MeanMetric(nan_strategy="disable")
        # Two sums: torchmetrics 1.9 ignores the weights of a mean that does not check for NaN.
        self.val_loss, self.val_count = (torchmetrics.SumMetric(nan_strategy="disable") for _ in range(2))
        self._configure = configure

    def forward(self, images: Tensor) -> Any:
        """Return the raw outputs of the model for normalized images."""
        return self.model(images)

    def loss(self, outputs: Any, targets: Any) -> Tensor:
        """Return the loss to minimize, a scalar, for raw outputs and targets."""
        raise NotImplementedError(f"{type(self).__name__} does not define its loss")

    def losses(self, images: Any, targets: Any) -> dict[str, Tensor]:
        """Return the loss to minimize as "loss", and its summands, to be logged, under other names."""
        return {"loss": self.loss(self(images), targets)}

    def training_step(self, batch: tuple[Any, Any], batch_idx: int) -> dict[str, Tensor]:
        losses = self.losses(self._normalized(batch[0]), batch[1])
        self.train_loss.update(losses["loss"].detach())
        self.log("loss", losses["loss"], prog_bar=True, logger=False)
        return {name: value if name == "loss" else value.detach() for name, value in losses.items()}

    def validation_step(self, batch: tuple[Any, Any], batch_idx: int) -> None:
        self.validate(self._normalized(batch[0]), batch[1])

    def validate(self, images: Any, targets: Any) -> None:
        """Update the metrics, and the validation loss if there is one, with a normalized batch."""
        outputs = self(images)
        self.measure(outputs, targets, self.loss(outputs, targets), len(targets))

    def measure(self, outputs: Any, targets: Any, loss: Tensor | None = None, count: int = 1) -> None:
        """Update the metrics, and the validation loss.

        Args:
            outputs: raw outputs of the model.
            targets: ground truth.
            loss: mean loss of the images; None for no loss.
            count: number of images.
        """
        self.metrics.update(outputs, targets)
        if loss is not None:
            self.val_loss.update(loss * count)
            self.val_count.update(count)

    def _normalized(self, images: Any) -> Any:
        if isinstance(images, list):
            return [self._normalized(image) for image in images]
        if images.dtype != torch.uint8:
            return images
        return normalize(images, self.model.preprocessing)

    def on_validation_epoch_end(self) -> None:
        # An epoch ends with its validation; values logged here are in the checkpoint that follows.
        self.log("train/loss_epoch", self.train_loss.compute())
        values = self.metrics.compute()
        if self.validates_loss:
            values["val/loss"] = self.val_loss.compute() / self.val_count.compute()
        self.log_dict(values, prog_bar=True)
        for metric in (self.train_loss, self.val_loss, self.val_count, self.metrics):
            metric.reset()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        # So that the mean loss of a resumed epoch is that of the complete epoch in all processes.
        reduce = self.trainer.strategy.reduce
        sums = {name: getattr(self.train_loss, name) for name in ("mean_value", "weight")}
        checkpoint["classes"] = list(self.model.classes or ())
        checkpoint["train_loss"] = {name: reduce(value.clone(), reduce_op="sum") for name, value in sums.items()}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self._check_state(checkpoint)
        for name, value in checkpoint["train_loss"].items():
            own = value if self.trainer.is_global_zero else torch.zeros_like(value)
            setattr(self.train_loss, name, own.to(self.device))

    def _check_state(self, checkpoint: dict[str, Any]) -> None:
        own = self.model.classes or ()
        if (classes := tuple(checkpoint.get("classes", own))) != own:
            raise UserError(
                f"the classes of the data are not those that the run started with: {_difference(own, classes)}; give "
                "the data of the run, or start a new run"
            )
        tensors, saved = self.state_dict(), checkpoint["state_dict"]
        differing = [name for name in tensors if name in saved and tensors[name].shape != saved[name].shape]
        if differing:
            name = differing[0]
            raise UserError(
                f"the network is not the one that the run started with: {name} has the shape "
                f"{tuple(tensors[name].shape)}, in the run {tuple(saved[name].shape)}; do the data have other classes?"
            )

    def configure_optimizers(self) -> Any:
        if self._configure is None:
            raise RuntimeError("this task was created for evaluation only: pass `configure` to train")
        return self._configure(self.model, int(self.trainer.estimated_stepping_batches))


def _difference(now: Sequence[str], before: Sequence[str]) -> str:
    added, removed = ([name for name in one if name not in other] for one, other in ((now, before), (before, now)))
    if not added and not removed:
        index = next(index for index, pair in enumerate(zip(now, before, strict=False)) if pair[0] != pair[1])
        return f"their order differs from class {index} on: {now[index]} instead of {before[index]}"
    parts = [f"{action} {shortened(names)}" for action, names in (("added", added), ("removed", removed)) if names]
    return " and ".join(parts)
