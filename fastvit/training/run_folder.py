"""The folder of a run: what may be in it at the start, and what is written there beside the checkpoints."""

from __future__ import annotations

import glob
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning as L
from filelock import FileLock, Timeout
from lightning.fabric.utilities.rank_zero import rank_zero_only

from fastvit.data.module import RunData
from fastvit.environment import environment
from fastvit.errors import UserError
from fastvit.files import write_text
from fastvit.renames import OLD_FILES
from fastvit.runs.files import (
    BEST,
    CURVES,
    ENVIRONMENT,
    EVALUATION,
    EVALUATION_PAGE,
    HISTORY,
    LAST,
    RECALIBRATED,
    RECIPE,
    REPORT,
    ROBUSTNESS,
    ROBUSTNESS_PAGE,
    SPLIT,
    STATE,
    TENSORBOARD,
    TRAINED,
    UNREADABLE,
)
from fastvit.training.checkpoint import check_state, rewind_metrics
from fastvit.training.loggers import MetricsFile
from fastvit.training.options import Recipe
from fastvit.training.recipe import dump_recipe

# What a run leaves, and what is measured of it afterwards; the comparison of runs reads some of both.
_LEFT = (
    *(STATE, BEST, LAST, TRAINED, RECALIBRATED, HISTORY, TENSORBOARD, UNREADABLE, SPLIT, ENVIRONMENT, CURVES, REPORT),
    *OLD_FILES,
)
_MEASURED = (EVALUATION, EVALUATION_PAGE)
# What `fastvit fuse`, `export` and `robustness` write beside a checkpoint, after its name without its suffix.
_DERIVED = ("-fused.safetensors", "-export", f"-*/{ROBUSTNESS}", f"-*/{ROBUSTNESS_PAGE}")
_LOCK = ".lock"


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
                f"{out} holds a run already: --resume {out} goes on with it, --overwrite replaces it, or give "
                "another --out"
            )
        # A run that was ended before its first checkpoint leaves a recipe, and nothing is made from its weights.
        begun = (out / RECIPE).exists()
        foreign = _derived(out) if begun else [path for path in _old(out) if path.name != SPLIT]
        if foreign:
            name = foreign[0].relative_to(out)
            raise UserError(f"{out} holds a {name} that is of no run: give another --out, or --overwrite")
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot make the folder {out}: {error.strerror}; give another --out") from error


@contextmanager
def locked(out: Path) -> Iterator[None]:
    """Keep other runs out of the folder; the first process does it for all.

    Raises:
        UserError: another run is in it.
    """
    if rank_zero_only.rank:
        yield
        return
    lock = FileLock(out / _LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise UserError(f"another process is training in {out}: wait for it, or give another --out") from error
    try:
        yield
    finally:
        (out / _LOCK).unlink(missing_ok=True)
        lock.release()


@rank_zero_only
def begin(recipe: Recipe, data: RunData) -> None:
    """Take away what an earlier run left and write down the new one; of one that is resumed, check the state."""
    for part in recipe.out.glob(".*.part"):  # of a process that was killed while it wrote
        part.unlink(missing_ok=True)
    if recipe.resume:
        check_state(recipe.out)
        return
    # First, so that a kill before the end leaves no recipe to go on with by mistake.
    (recipe.out / RECIPE).unlink(missing_ok=True)
    for path in _old(recipe.out):
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    data.write_split(recipe.out / SPLIT)
    write_down(recipe)


def write_down(recipe: Recipe) -> None:
    """Write what runs, and on what."""
    write_text(recipe.out / RECIPE, dump_recipe(replace(recipe, overwrite=False, resume=None)))
    write_text(recipe.out / ENVIRONMENT, json.dumps(environment(), indent=2) + "\n")


class WriteDown(L.Callback):
    """Writes down a resumed run and winds back its metrics when its state has been found to fit.

    Until then the folder is as it was.
    """

    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe
        self._rows = 0
        self._pending = recipe.resume is not None

    def on_load_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        self._rows = checkpoint["metrics_rows"]

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._write(trainer)

    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        # Training does not start where all epochs have been made.
        self._write(trainer)

    def _write(self, trainer: L.Trainer) -> None:
        if self._pending and trainer.is_global_zero:
            rewind_metrics(self.recipe.out, self._rows)
            for logger in trainer.loggers:
                if isinstance(logger, MetricsFile):
                    logger.reopen()
            write_down(self.recipe)
        self._pending = False


def _old(out: Path) -> list[Path]:
    """Return what is there of a run, but for its recipe."""
    return [path for name in (*_LEFT, *_MEASURED) for path in out.glob(name)] + _derived(out)


def _derived(out: Path) -> list[Path]:
    """Return what commands made from the checkpoints of a run and wrote beside them."""
    weights = {BEST, LAST, TRAINED, RECALIBRATED, *(path.name for path in out.glob("*.safetensors"))}
    names = sorted(Path(name).stem for name in weights)
    return [path for name in names for ending in _DERIVED for path in out.glob(glob.escape(name) + ending)]


def state_to_resume(recipe: Recipe) -> Path | None:
    """The checkpoint to go on from; None for a run that is new or was ended before its first one."""
    state = recipe.out / STATE
    return state if recipe.resume and state.exists() else None
