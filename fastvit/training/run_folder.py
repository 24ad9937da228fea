"""Folder of a run: checks before training, and the files besides checkpoints."""

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

# Files of a run, and files of its evaluation; the comparison of runs reads some of both.
_LEFT = (
    *(STATE, BEST, LAST, TRAINED, RECALIBRATED, HISTORY, TENSORBOARD, UNREADABLE, SPLIT, ENVIRONMENT, CURVES, REPORT),
    *OLD_FILES,
)
_MEASURED = (EVALUATION, EVALUATION_PAGE)
# Endings of what `fastvit fuse`, `export` and `robustness` write beside a checkpoint, after its name without suffix.
_DERIVED = ("-fused.safetensors", "-export", f"-*/{ROBUSTNESS}", f"-*/{ROBUSTNESS_PAGE}")
_LOCK = ".lock"


@rank_zero_only
def claim(recipe: Recipe) -> None:
    """Create the folder of a run, after a check that it does not contain another run.

    Raises:
        UserError: the folder contains a run, and neither --resume nor --overwrite is given; it contains files of
            another origin that the run would replace; or it cannot be created.
    """
    out = recipe.out
    if not recipe.resume and not recipe.overwrite:
        if any((out / name).exists() for name in (STATE, BEST)):
            raise UserError(
                f"{out} already contains a run: resume it with --resume {out}, replace it with --overwrite, or give "
                "another --out"
            )
        # A run that ended before its first checkpoint leaves a recipe, and no files made from its weights.
        begun = (out / RECIPE).exists()
        foreign = _derived(out) if begun else [path for path in _old(out) if path.name != SPLIT]
        if foreign:
            name = foreign[0].relative_to(out)
            raise UserError(
                f"{out} contains {name}, which is not from a run: give another --out, or replace it with --overwrite"
            )
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot create the folder {out}: {error.strerror}; give another --out") from error


@contextmanager
def locked(out: Path) -> Iterator[None]:
    """Lock the folder against other runs; the first process does this for all.

    Raises:
        UserError: another process has locked the folder.
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
    """Delete the files of an earlier run and write recipe.yaml and split.csv; for a resumed run, check last.ckpt.

    Args:
        recipe: recipe of the run.
        data: data of the run, with the validation split.
    """
    for part in recipe.out.glob(".*.part"):  # left by a process that was killed while writing
        part.unlink(missing_ok=True)
    if recipe.resume:
        check_state(recipe.out)
        return
    # First, so that an interruption here leaves no recipe that could be resumed by mistake.
    (recipe.out / RECIPE).unlink(missing_ok=True)
    for path in _old(recipe.out):
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    data.write_split(recipe.out / SPLIT)
    write_down(recipe)


def write_down(recipe: Recipe) -> None:
    """Write recipe.yaml and environment.json."""
    write_text(recipe.out / RECIPE, dump_recipe(replace(recipe, overwrite=False, resume=None)))
    write_text(recipe.out / ENVIRONMENT, json.dumps(environment(), indent=2) + "\n")


class WriteDown(L.Callback):
    """Writer of the recipe and the shortened metrics.csv of a resumed run, once its checkpoint is loaded.

    Until then the folder is not changed.

    Args:
        recipe: recipe of the run.
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
        # Training does not start if all epochs are finished.
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
    """Return the files of a run in the folder, except its recipe."""
    return [path for name in (*_LEFT, *_MEASURED) for path in out.glob(name)] + _derived(out)


def _derived(out: Path) -> list[Path]:
    """Return the files that commands created from the checkpoints of a run, beside them."""
    weights = {BEST, LAST, TRAINED, RECALIBRATED, *(path.name for path in out.glob("*.safetensors"))}
    names = sorted(Path(name).stem for name in weights)
    return [path for name in names for ending in _DERIVED for path in out.glob(glob.escape(name) + ending)]


def state_to_resume(recipe: Recipe) -> Path | None:
    """Return the checkpoint to resume from; None for a new run, or one that ended before its first checkpoint."""
    state = recipe.out / STATE
    return state if recipe.resume and state.exists() else None
