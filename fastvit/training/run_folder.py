"""The folder of a run: what may be in it at the start, and what is written there beside the checkpoints."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import lightning as L
from lightning.fabric.utilities.rank_zero import rank_zero_only

from fastvit.environment import environment
from fastvit.errors import UserError
from fastvit.files import write_text
from fastvit.training.callbacks import BEST, LAST, TRAINED
from fastvit.training.checkpoint import STATE, rewind_metrics
from fastvit.training.loggers import METRICS
from fastvit.training.options import Recipe
from fastvit.training.recipe import RESOLVED, dump_recipe

SPLIT, DAMAGED, ENVIRONMENT, RECALIBRATED = "split.csv", "damaged.txt", "environment.json", "recalibrated.safetensors"
TENSORBOARD = "tensorboard"
# What a run leaves, and what is measured of it afterwards; the comparison of runs reads some of both.
_LEFT = (STATE, BEST, LAST, TRAINED, RECALIBRATED, METRICS, DAMAGED, ENVIRONMENT, "curves.png", "report.html")
_MEASURED = ("evaluation.json", "evaluation.html")


@rank_zero_only
def claim(recipe: Recipe) -> None:
    """See that the folder is free, or that replacing or resuming its run was asked for.

    Raises:
        UserError: it holds a run, and neither was; or files that no run of ours left; or it cannot be made.
    """
    out = recipe.out
    if not recipe.resume and not recipe.overwrite:
        if any((out / name).exists() for name in (STATE, BEST)):
            raise UserError(
                f"{out} holds a run already: --resume {out} goes on with it, --overwrite true replaces it, or give "
                "another --out"
            )
        foreign = [name for name in (*_LEFT, *_MEASURED, SPLIT) if (out / name).exists()]
        if foreign and not (out / RESOLVED).exists():
            raise UserError(f"{out} holds a {foreign[0]} that is of no run: give another --out, or --overwrite true")
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot make the folder {out}: {error.strerror}; give another --out") from error
    for part in out.glob(".*.part"):  # of a process that was killed while it wrote
        part.unlink(missing_ok=True)
    if not recipe.resume:
        (out / SPLIT).unlink(missing_ok=True)  # before the data is opened, which goes by the split that is there


@rank_zero_only
def make_room(recipe: Recipe) -> None:
    """Take away what an earlier run left; the metrics of one that is resumed are wound back to its checkpoint."""
    if recipe.resume:
        rewind_metrics(recipe.out)
        return
    for name in (*_LEFT, *_MEASURED):
        (recipe.out / name).unlink(missing_ok=True)
    for folder in (recipe.out / TENSORBOARD, *(path.parent for path in recipe.out.glob("*/robustness.json"))):
        shutil.rmtree(folder, ignore_errors=True)


class WriteDown(L.Callback):
    """Writes what runs, and on what, when training begins: a run that cannot go on as asked keeps its own recipe."""

    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.is_global_zero:
            out = self.recipe.out
            write_text(out / RESOLVED, dump_recipe(replace(self.recipe, overwrite=False, resume=None)))
            write_text(out / ENVIRONMENT, json.dumps(environment(), indent=2) + "\n")


def state_to_resume(recipe: Recipe) -> Path | None:
    """The checkpoint to go on from; None for a run that is new or was ended before its first one."""
    state = recipe.out / STATE
    return state if recipe.resume and state.exists() else None
