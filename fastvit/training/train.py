"""Train a recipe: create the data, the model and the Trainer, and write checkpoints and a report."""

from __future__ import annotations

import errno
import logging
import signal
import sys
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import lightning as L
from lightning.fabric.utilities.rank_zero import rank_zero_only

from fastvit.console import counted, new_console, print_line
from fastvit.data.module import RunData
from fastvit.device import pick_device
from fastvit.errors import UserError
from fastvit.evaluation.examples import Example, examples
from fastvit.predict.predictor import Predictor
from fastvit.runs.files import BEST, STATE, TRAINED, UNREADABLE
from fastvit.tasks.table import find_task
from fastvit.training.build import build
from fastvit.training.callbacks import (
    DecayWeights,
    Ema,
    LogSteps,
    PrintEpochs,
    ProgressBar,
    SaveBest,
    SeedSteps,
    StopOnNonFinite,
)
from fastvit.training.checkpoint import AtomicCheckpointIO, SaveState, StopRequest
from fastvit.training.loggers import make_loggers
from fastvit.training.norms import SyncNorms
from fastvit.training.options import Recipe
from fastvit.training.processes import ended_together, with_processes
from fastvit.training.recalibrate import recalibrate
from fastvit.training.resume import Resumed, refuse_changes
from fastvit.training.run_folder import WriteDown, begin, claim, locked, state_to_resume
from fastvit.training.run_report import write_run_report
from fastvit.training.task import Task
from fastvit.training.unreadable import UnreadableImages

LOG_EVERY = 10


@dataclass(frozen=True)
class Run:
    """Result of a training run.

    Attributes:
        out: folder of the run.
        best: checkpoint with the best value of the task's headline metric on the validation images.
        score: the best value, in the unit of the metric.
    """

    out: Path
    best: Path
    score: float


def train(recipe: Recipe, callbacks: Sequence[L.Callback] = ()) -> Run:
    """Train a recipe with a progress display, and write all results to the folder `recipe.out`.

    Args:
        recipe: settings of the run.
        callbacks: additional callbacks, called after the built-in ones.

    Raises:
        UserError: the data, the model or the device is not available, the folder already contains a run, the disk is
            full, or the loss diverges.
        Terminated: the process received SIGTERM or SIGUSR1; the run can be resumed.
        KeyboardInterrupt: the run was interrupted, and can be resumed from the last checkpoint.
    """
    device = pick_device(recipe.device)
    recipe = with_processes(recipe)
    refuse_changes(recipe)
    claim(recipe)
    request = StopRequest()
    with locked(recipe.out), request.listening(), _quiet(), _full_disk_named(recipe.out):
        L.seed_everything(recipe.seed, workers=True, verbose=False)
        task, data = build(recipe)
        best = SaveBest(recipe.out, find_task(recipe.task))
        trainer = _trainer(recipe, device, _callbacks(recipe, device, best, request, callbacks))
        begin(recipe, data)
        _announce(recipe, task, data, device)
        _fit(trainer, task, data, state_to_resume(recipe))
        if trainer.is_global_zero:
            if recipe.ema.recalibrate:
                recalibrate(recipe, device)
            write_run_report(recipe.out, _examples(recipe, data, device))
    assert best.score is not None
    return Run(recipe.out, recipe.out / BEST, best.score)


def _examples(recipe: Recipe, data: RunData, device: str) -> list[Example]:
    """Return validation images with predictions of the best weights, for tasks whose predictions are drawn."""
    return examples(Predictor(recipe.out / BEST, device, "torch"), data.test_images)


def _callbacks(
    recipe: Recipe, device: str, best: SaveBest, request: StopRequest, more: Sequence[L.Callback]
) -> list[L.Callback]:
    """Return the callbacks, in the order in which they must run."""
    every = 1 if device == "cpu" else LOG_EVERY  # reading a value waits for the device
    chosen: list[L.Callback] = [
        Resumed(recipe),
        WriteDown(recipe),
        SeedSteps(recipe.seed),
        UnreadableImages(recipe.max_unreadable, recipe.out / UNREADABLE),
        StopOnNonFinite(every, recipe.out / STATE),
        LogSteps(LOG_EVERY),
        best,  # must run before Ema restores the weights without EMA
        PrintEpochs(find_task(recipe.task)) if new_console().is_jupyter else ProgressBar(every),
    ]
    if recipe.optim.weight_decay_end is not None:
        chosen.append(DecayWeights(recipe.optim))
    if recipe.ema.decay:
        chosen.append(Ema(recipe.ema, recipe.out / TRAINED))
    # The checkpoint is written after all other callbacks have run.
    return [*chosen, *more, SaveState(recipe.out, recipe.checkpoint_every, request)]


def _trainer(recipe: Recipe, device: str, callbacks: list[L.Callback]) -> L.Trainer:
    # The synchronized batch norm of Lightning needs GPUs.
    sync = recipe.batchnorm == "sync"
    plugins = [AtomicCheckpointIO(), *([SyncNorms()] if sync and device == "cpu" else [])]
    return L.Trainer(
        accelerator="gpu" if device == "cuda" else device,
        devices=recipe.devices,
        num_nodes=recipe.num_nodes,
        precision=recipe.precision,
        max_epochs=recipe.epochs + recipe.optim.cooldown_epochs,
        accumulate_grad_batches=recipe.accumulate_grad_batches,
        gradient_clip_val=recipe.optim.clip_grad,
        sync_batchnorm=sync and device != "cpu",
        callbacks=callbacks,
        plugins=plugins,
        logger=make_loggers(recipe.out, recipe.wandb),
        enable_progress_bar=any(isinstance(callback, ProgressBar) for callback in callbacks),
        enable_model_summary=False,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,  # our samplers distribute the images
        default_root_dir=recipe.out,
    )


@rank_zero_only
def _announce(recipe: Recipe, task: Task, data: RunData, device: str) -> None:
    processes = recipe.devices * recipe.num_nodes
    batch = recipe.batch_size * recipe.accumulate_grad_batches * processes
    parameters = sum(p.numel() for p in task.model.parameters())
    epochs = recipe.epochs + recipe.optim.cooldown_epochs
    classes = f", {len(data.classes):,} classes" if len(data.classes) > 1 else ""
    print_line(
        f"{task.model.variant}, {parameters / 1e6:.2f} M parameters{classes}; {len(data.train_images):,} training and "
        f"{counted(len(data.test_images), 'validation image')}; {counted(epochs, 'epoch')}; batch size {batch} on "
        f"{counted(processes, f'{device} device')}; output: {recipe.out}",
        sys.stderr,
    )


def _fit(trainer: L.Trainer, task: Task, data: RunData, state: Path | None) -> None:
    """Fit, and raise KeyboardInterrupt on Ctrl-C: Lightning would call exit(1) and ignore further ones."""
    handler = signal.getsignal(signal.SIGINT)
    try:
        with ended_together(trainer):
            trainer.fit(task, data, ckpt_path=state)
    except SystemExit as error:
        if trainer.interrupted:
            raise KeyboardInterrupt from error
        raise
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, handler)


@contextmanager
def _full_disk_named(out: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise
        raise UserError(
            f"cannot write to {out}: {error.strerror}; free disk space, then resume with: fastvit train --resume {out}"
        ) from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Suppress log messages of Lightning that do not apply: advertisements, and hints about intended settings."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.WARNING)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*does not have many workers.*")
        warnings.filterwarnings("ignore", message=".*LeafSpec.*")
        warnings.filterwarnings("ignore", message=".*in eval mode at the start of training.*")  # frozen batch norms
        warnings.filterwarnings("ignore", message=".*number of training batches .* smaller than the logging interval.*")
        warnings.filterwarnings("ignore", message=".*your dataloader is not resumable.*")  # its sampler is
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
