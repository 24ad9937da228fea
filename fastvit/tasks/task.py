"""What every task is: a LightningModule that owns a model, a loss, metrics and decoding."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import lightning as L
import torchmetrics
from torch import Tensor, nn

Configure = Callable[[nn.Module, int], Any]


class Task(L.LightningModule):
    """The base of the tasks: what Lightning's loop asks of a module, in terms of a model, a loss and metrics.

    A task implements `loss`; its metrics, given once, are updated and logged here under their own names.

    Args:
        model: what is trained and saved.
        metrics: evaluated on the validation set with (outputs, targets), logged as "val/NAME".
        configure: (model, number of optimizer steps) -> what Lightning's configure_optimizers returns; None for
            evaluation only.
    """

    def __init__(
        self, model: nn.Module, metrics: torchmetrics.MetricCollection, configure: Configure | None = None
    ) -> None:
        super().__init__()
        self.model = model
        self.metrics = metrics.clone(prefix="val/")
        self._configure = configure

    def forward(self, images: Tensor) -> Any:
        return self.model(images)

    def loss(self, outputs: Any, targets: Any) -> Tensor:
        """The scalar to minimise."""
        raise NotImplementedError(f"{type(self).__name__} does not define its loss")

    def prepare(self, images: Tensor, targets: Any) -> tuple[Tensor, Any]:
        """What training does to a batch on the device; nothing unless a task says so."""
        return images, targets

    def training_step(self, batch: tuple[Tensor, Any], batch_idx: int) -> Tensor:
        images, targets = self.prepare(*batch)
        loss = self.loss(self(images), targets)
        self.log("train/loss", loss, on_step=True, on_epoch=True, prog_bar=True, batch_size=len(images))
        return loss

    def validation_step(self, batch: tuple[Tensor, Any], batch_idx: int) -> None:
        images, targets = batch
        outputs = self(images)
        self.log("val/loss", self.validation_loss(outputs, targets), batch_size=len(images), sync_dist=True)
        self.metrics.update(outputs, targets)

    def validation_loss(self, outputs: Any, targets: Any) -> Tensor:
        """The loss on plain targets, where training changes them (mixing, smoothing)."""
        return self.loss(outputs, targets)

    def on_validation_epoch_end(self) -> None:
        self.log_dict(self.metrics.compute(), prog_bar=True, sync_dist=False)
        self.metrics.reset()

    def configure_optimizers(self) -> Any:
        if self._configure is None:
            raise RuntimeError("this task was made for evaluation: give it `configure` to train")
        return self._configure(self.model, int(self.trainer.estimated_stepping_batches))
