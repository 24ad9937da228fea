"""What may be changed when a run goes on: each change takes effect, or is refused by name."""

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

# The fields that take effect. Others are in the state that the run goes on from (rates, decays), or make another
# network, another task or another order of the images of it.
CHANGEABLE = frozenset(
    {
        # Where the same images are now.
        *("data", "skip_unreadable", "max_unreadable", "num_workers"),
        # How the same steps are computed; the images of a step must stay as many, which `Resumed` sees to.
        *("device", "devices", "num_nodes", "batch_size", "accumulate_grad_batches"),
        *("precision", "compile", "channels_last", "model.collapse_branches"),
        # How far, and what for safety.
        *("epochs", "optim.clip_grad", "checkpoint_every", "wandb"),
    }
)
# The fields that decide which images are held out. With others, weights of the run may have been trained on those.
_SPLIT_FIELDS = frozenset({"data", "seed", "val_fraction"})


def refuse_changes(recipe: Recipe) -> None:
    """See that a run that goes on is asked for no change that would not take effect.

    Raises:
        UserError: there is no run, or other fields than `CHANGEABLE` are not those of its recipe.
    """
    if not recipe.resume:
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the recipe of the run has been read before, for this one
        before = _settings(resolved_recipe(recipe.out))
    now = _settings(recipe)
    if changes := _refused(before, now):
        same_split = all(now[name] == before[name] for name in _SPLIT_FIELDS)
        weights = f"--model.weights {recipe.out / LAST} " if same_split else ""
        raise UserError(
            f"a run that goes on cannot change {changes}: leave that out, or begin a new run with --recipe "
            f"{recipe.out / RECIPE} {weights}--out OTHER"
        )


def _settings(recipe: Recipe) -> dict[str, Any]:
    """Return the fields of a recipe by their dotted names, with values that a checkpoint can contain."""
    return flatten(json.loads(json.dumps(recipe.to_dict(), default=str)))


def _refused(before: dict[str, Any], now: dict[str, Any]) -> str:
    """Return the changes of fields that may not change, in words."""
    return ", ".join(
        f"{name} from {setting_text(before[name])} to {setting_text(now[name])}"
        for name in now
        if name in before and now[name] != before[name] and name not in CHANGEABLE
    )


class Resumed(L.Callback):
    """Sees that a run goes on as it began and in the same place, and sets the learning rate of that place.

    Args:
        recipe: of the run. It is in each checkpoint, so that a recipe.yaml that was edited since is found out.
    """

    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe
        self._started = False

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        checkpoint["recipe"] = _settings(self.recipe)

    def on_load_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        if changes := _refused(checkpoint.get("recipe", {}), _settings(self.recipe)):
            raise UserError(
                f"{self.recipe.out / RECIPE} is not the recipe that the run has followed: it changes {changes}; set "
                "these fields to what they were, or begin a new run in another folder"
            )
        done, epochs = _place(trainer)["epoch"], trainer.max_epochs or 0
        if done > epochs:
            raise UserError(
                f"the run has made {done} epochs, more than the {epochs} that are asked for: give more epochs"
            )

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._started = True
        _see_that_the_place_is_the_same(trainer)
        for config in trainer.lr_scheduler_configs:
            scheduler: Any = config.scheduler
            for group, base, factor in zip(
                scheduler.optimizer.param_groups, scheduler.base_lrs, scheduler.lr_lambdas, strict=True
            ):
                group["lr"] = base * factor(scheduler.last_epoch)

    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if not self._started:  # all epochs have been made
            _see_that_the_place_is_the_same(trainer)


def _see_that_the_place_is_the_same(trainer: L.Trainer) -> None:
    accumulate, place = trainer.accumulate_grad_batches, _place(trainer)
    steps = -(-int(trainer.num_training_batches) // accumulate)
    expected = place["epoch"] * steps + place["start"] // accumulate
    if trainer.global_step != expected:
        raise UserError(
            f"the run has made {trainer.global_step} steps up to here, where {expected} would be made now, {steps} "
            "an epoch: batch_size x accumulate_grad_batches x devices x num_nodes and the number of training images "
            "must stay what they were, or the learning rate would be that of another place"
        )


def _place(trainer: L.Trainer) -> dict[str, int]:
    """The epoch that a run goes on with, and the batches of it that it has made."""
    place: dict[str, int] = trainer.datamodule.resume_state
    return place
