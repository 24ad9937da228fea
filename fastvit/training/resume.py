"""Resume a run, with a check of changed fields: each change takes effect or is an error."""

from __future__ import annotations

import json
import warnings
from typing import Any

import lightning as L

from fastvit.errors import UserError
from fastvit.runs.files import LAST, RECIPE
from fastvit.runs.settings import flatten, setting_text
from fastvit.training.options import Recipe
from fastvit.training.recipe import resolved_recipe

# The fields whose changes take effect. Others are part of the checkpoint (learning rate, weight decay), or change the
# network, the task or the order of the images.
CHANGEABLE = frozenset(
    {
        # Where the same images are.
        *("data", "skip_unreadable", "max_unreadable", "num_workers"),
        # How the same steps are computed; the number of images per step must stay the same, which `Resumed` checks.
        *("device", "devices", "num_nodes", "batch_size", "accumulate_grad_batches"),
        *("precision", "compile", "channels_last", "model.collapse_branches"),
        # How long to train, and safeguards.
        *("epochs", "optim.clip_grad", "checkpoint_every", "wandb"),
    }
)
# The fields that determine the validation split. With others, the weights may have been trained on its images.
_SPLIT_FIELDS = frozenset({"data", "seed", "val_fraction"})


def refuse_changes(recipe: Recipe) -> None:
    """Refuse changes of a resumed run that would have no effect.

    Raises:
        UserError: the run does not exist, or fields other than `CHANGEABLE` differ from its recipe.
    """
    if not recipe.resume:
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # parsing this recipe has given the same warnings
        before = _settings(resolved_recipe(recipe.out))
    now = _settings(recipe)
    if changes := _refused(before, now):
        same_split = all(now[name] == before[name] for name in _SPLIT_FIELDS)
        weights = f"--model.weights {recipe.out / LAST} " if same_split else ""
        raise UserError(
            f"a resumed run cannot change {changes}: leave that out, or start a new run with --recipe "
            f"{recipe.out / RECIPE} {weights}--out OTHER"
        )


def _settings(recipe: Recipe) -> dict[str, Any]:
    """Return the fields of a recipe by dotted name, with values that a checkpoint can contain."""
    return flatten(json.loads(json.dumps(recipe.to_dict(), default=str)))


def _refused(before: dict[str, Any], now: dict[str, Any]) -> str:
    """Return a description of the changes of fields that must not change; empty if there are none."""
    return ", ".join(
        f"{name} from {setting_text(before[name])} to {setting_text(now[name])}"
        for name in now
        if name in before and now[name] != before[name] and name not in CHANGEABLE
    )


class Resumed(L.Callback):
    """Check that a run is resumed with its own recipe and at the same step, and set the learning rate of that step.

    Args:
        recipe: recipe of the run. Each checkpoint contains it, so that changes of recipe.yaml are detected.
    """

    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe
        self._started = False

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        checkpoint["recipe"] = _settings(self.recipe)

    def on_load_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        if changes := _refused(checkpoint.get("recipe", {}), _settings(self.recipe)):
            raise UserError(
                f"{self.recipe.out / RECIPE} is not the recipe that the run was trained with: it changes {changes}; "
                "restore these fields, or start a new run in another folder"
            )
        done, epochs = _position(trainer)["epoch"], trainer.max_epochs or 0
        if done > epochs:
            raise UserError(
                f"the run has finished {done} epochs, more than the {epochs} of the recipe: increase epochs"
            )

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._started = True
        _check_step(trainer)
        for config in trainer.lr_scheduler_configs:
            scheduler: Any = config.scheduler
            for group, base, factor in zip(
                scheduler.optimizer.param_groups, scheduler.base_lrs, scheduler.lr_lambdas, strict=True
            ):
                group["lr"] = base * factor(scheduler.last_epoch)

    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if not self._started:  # all epochs are finished
            _check_step(trainer)


def _check_step(trainer: L.Trainer) -> None:
    accumulate, position = trainer.accumulate_grad_batches, _position(trainer)
    steps = -(-int(trainer.num_training_batches) // accumulate)
    expected = position["epoch"] * steps + position["start"] // accumulate
    if trainer.global_step != expected:
        raise UserError(
            f"the run is at step {trainer.global_step}, but would be at step {expected} with the current "
            f"settings, {steps} per epoch: batch_size x accumulate_grad_batches x devices x num_nodes and the number "
            "of training images must not change, or the learning rate schedule would"
        )


def _position(trainer: L.Trainer) -> dict[str, int]:
    """Return the epoch at which a run is resumed ("epoch"), and the finished batches of it ("start")."""
    position: dict[str, int] = trainer.datamodule.resume_state
    return position
