"""What may be changed when a run goes on: each change takes effect, or is refused by name."""

from __future__ import annotations

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
        *("data", "allow_damaged", "damaged_limit", "workers"),
        # How the same steps are computed; the images of a step must stay as many, which `Resumed` sees to.
        *("device", "devices", "nodes", "batch_size", "accumulate"),
        *("precision", "compile", "channels_last", "model.train_form"),
        # How far, and what for safety.
        *("epochs", "optim.clip", "checkpoint_every", "wandb"),
    }
)


def refuse_changes(recipe: Recipe) -> None:
    """See that a run that goes on is asked for no change that would not take effect.

    Raises:
        UserError: there is no run, or other fields than `CHANGEABLE` are not those of its recipe.
    """
    if not recipe.resume:
        return
    before, now = (flatten(each.to_dict()) for each in (resolved_recipe(recipe.out), recipe))
    changed = [name for name in now if now[name] != before[name] and name not in CHANGEABLE]
    if changed:
        changes = ", ".join(
            f"{name} from {setting_text(before[name])} to {setting_text(now[name])}" for name in changed
        )
        raise UserError(
            f"a run that goes on cannot change {changes}: leave that out, or begin a new run with --recipe "
            f"{recipe.out / RECIPE} --model.weights {recipe.out / LAST} --out OTHER"
        )


class Resumed(L.Callback):
    """Sees that the place in a run is the same with what was changed, and sets the learning rate of that place."""

    def on_load_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        done, epochs = _place(trainer)["epoch"], trainer.max_epochs or 0
        if done > epochs:
            raise UserError(
                f"the run has made {done} epochs, more than the {epochs} that are asked for: give more epochs"
            )

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        accumulate, place = trainer.accumulate_grad_batches, _place(trainer)
        steps = -(-int(trainer.num_training_batches) // accumulate)
        expected = place["epoch"] * steps + place["start"] // accumulate
        if trainer.global_step != expected:
            raise UserError(
                f"the run has made {trainer.global_step} steps up to here, where {expected} would be made now, {steps} "
                "an epoch: batch_size x accumulate x devices x nodes and the number of training images must stay what "
                "they were, or the learning rate would be that of another place"
            )
        for config in trainer.lr_scheduler_configs:
            scheduler: Any = config.scheduler
            for group, base, factor in zip(
                scheduler.optimizer.param_groups, scheduler.base_lrs, scheduler.lr_lambdas, strict=True
            ):
                group["lr"] = base * factor(scheduler.last_epoch)


def _place(trainer: L.Trainer) -> dict[str, int]:
    """The epoch that a run goes on with, and the batches of it that it has made."""
    place: dict[str, int] = trainer.datamodule.place
    return place
