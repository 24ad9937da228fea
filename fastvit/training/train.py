"""Training, top to bottom: recipe -> data, task, Trainer -> checkpoints."""

from __future__ import annotations

import logging
import signal
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import LearningRateMonitor
from lightning.pytorch.loggers import CSVLogger

from fastvit.create import create_model
from fastvit.device import pick_device
from fastvit.errors import UserError
from fastvit.model.classifier import FastViT
from fastvit.tasks.classification.data import ClassificationData
from fastvit.tasks.classification.module import ClassificationTask
from fastvit.training.callbacks import BEST, Ema, ProgressBar, SaveBest, SeedSteps, StopOnNonFinite
from fastvit.training.optim import configure
from fastvit.training.recipe import ModelOptions, Recipe
from fastvit.weights.load import load_weights


@dataclass(frozen=True)
class Run:
    """What a training run left behind.

    Attributes:
        out: its folder.
        best: the checkpoint with the best validation top-1.
        top1: of that checkpoint, as a fraction.
    """

    out: Path
    best: Path
    top1: float


def build_model(options: ModelOptions, classes: tuple[str, ...]) -> FastViT:
    """The network of a recipe, with the data's classes and the recipe's preprocessing."""
    scale = options.layer_scale_init
    overrides: dict[str, Any] = {} if scale is None else {"layer_scale_init": scale}
    model = create_model(
        options.name, options.pretrained, num_classes=len(classes), drop_path=options.drop_path, **overrides
    )
    if options.weights:
        load_weights(model, options.weights)
    model.classes = classes
    named = {"mean": options.mean, "std": options.std, "crop_pct": options.crop_pct}
    changes: dict[str, Any] = {name: value for name, value in named.items() if value is not None}
    model.preprocessing = replace(model.preprocessing, size=(options.size, options.size), **changes)
    return model


def build(recipe: Recipe) -> tuple[ClassificationTask, ClassificationData]:
    """The task and the data of a recipe.

    Raises:
        UserError: one of them cannot be had.
    """
    # The data's classes make the head, the model's preprocessing makes the data's transforms.
    data = ClassificationData(recipe.data, recipe.batch_size, recipe.augmentation, recipe.workers, seed=recipe.seed)
    model = build_model(recipe.model, data.classes)
    data.preprocessing = model.preprocessing
    if recipe.channels_last:
        model = model.to(memory_format=torch.channels_last)
    optimizer = partial(configure, epochs=recipe.epochs, options=recipe.optim)
    return ClassificationTask(model, recipe.mixing, optimizer, recipe.augmentation.random_erasing), data


def train(recipe: Recipe) -> Run:
    """Train as a recipe says; progress is shown, checkpoints and metrics.csv are written to recipe.out.

    Raises:
        UserError: data, model or device cannot be had, the folder holds a run already, or the loss diverges.
        KeyboardInterrupt: interrupted; the checkpoints of the epochs before are there.
    """
    device = pick_device(recipe.device)
    if (recipe.out / BEST).exists() and not recipe.overwrite:
        raise UserError(f"{recipe.out} holds a run already: give another --out, or --overwrite true to replace it")
    L.seed_everything(recipe.seed, workers=True, verbose=False)
    task, data = build(recipe)
    # The order matters: SaveBest must see the averaged model before Ema takes it out again.
    best = SaveBest(recipe.out)
    callbacks: list[L.Callback] = [
        SeedSteps(recipe.seed),
        StopOnNonFinite(),
        best,
        ProgressBar(),
        LearningRateMonitor("step"),
    ]
    if recipe.ema.decay:
        callbacks.append(Ema(recipe.ema))
    with _quiet():
        trainer = L.Trainer(
            accelerator="gpu" if device == "cuda" else device,
            devices=recipe.devices,
            precision=recipe.precision,
            max_epochs=recipe.epochs,
            gradient_clip_val=recipe.optim.clip,
            callbacks=callbacks,
            logger=CSVLogger(recipe.out, name="", version=""),
            enable_checkpointing=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            use_distributed_sampler=False,  # our samplers share out the images
            log_every_n_steps=10,
            default_root_dir=recipe.out,
        )
        _fit(trainer, task, data)
    return Run(recipe.out, recipe.out / BEST, best.best)


def _fit(trainer: L.Trainer, task: ClassificationTask, data: ClassificationData) -> None:
    """Fit, and let an interruption be one: Lightning turns it into exit(1) and leaves Ctrl-C ignored."""
    handler = signal.getsignal(signal.SIGINT)
    try:
        trainer.fit(task, data)
    except SystemExit as error:
        if trainer.interrupted:
            raise KeyboardInterrupt from error
        raise
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, handler)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without Lightning's advertisements and hints about things that are meant to be as they are."""
    logger = logging.getLogger("lightning.pytorch")
    level = logger.level
    logger.setLevel(logging.WARNING)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*does not have many workers.*")
        warnings.filterwarnings("ignore", message=".*Experiment logs directory .* exists.*")
        warnings.filterwarnings("ignore", message=".*LeafSpec.*")
        warnings.filterwarnings("ignore", message=".*number of training batches .* smaller than the logging interval.*")
        try:
            yield
        finally:
            logger.setLevel(level)
