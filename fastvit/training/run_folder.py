"""The folder of a run: what may be in it at the start, and what is written there beside the checkpoints."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

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
_OLD = (STATE, BEST, LAST, TRAINED, RECALIBRATED, METRICS, SPLIT, DAMAGED)


@rank_zero_only
def claim(recipe: Recipe) -> None:
    """See that the folder is free, or that replacing or resuming its run was asked for.

    Raises:
        UserError: it holds a run, and neither was.
    """
    holds = [name for name in (STATE, BEST) if (recipe.out / name).exists()]
    if holds and not recipe.overwrite and not recipe.resume:
        raise UserError(
            f"{recipe.out} holds a run already: --resume {recipe.out} goes on with it, --overwrite true replaces it, "
            "or give another --out"
        )


@rank_zero_only
def begin(recipe: Recipe) -> None:
    """Write down what is about to run; what is left of a run that is replaced goes, a resumed one is wound back."""
    out = recipe.out
    for part in out.glob(".*.part"):  # of a process that was killed while it wrote
        part.unlink(missing_ok=True)
    if recipe.resume:
        rewind_metrics(out)
    elif recipe.overwrite:
        for name in _OLD:
            (out / name).unlink(missing_ok=True)
        shutil.rmtree(out / TENSORBOARD, ignore_errors=True)
    write_text(out / RESOLVED, dump_recipe(replace(recipe, overwrite=False, resume=None)))
    write_text(out / ENVIRONMENT, json.dumps(environment(), indent=2) + "\n")


def state_to_resume(recipe: Recipe) -> Path | None:
    """The checkpoint to go on from; None for a run that is new or was ended before its first one."""
    state = recipe.out / STATE
    return state if recipe.resume and state.exists() else None
