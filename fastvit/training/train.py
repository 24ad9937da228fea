"""Training, top to bottom: recipe -> data, task, Trainer -> checkpoints."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import LearningRateMonitor, RichProgressBar
from lightning.pytorch.loggers import CSVLogger

from fastvit.create import create_model
from fastvit.device import pick_device
from fastvit.model.classifier import FastViT
from fastvit.model.preprocessing import Preprocessing
from fastvit.tasks.classification.data import ClassificationData
from fastvit.tasks.classification.module import ClassificationTask
from fastvit.training.callbacks import Ema, ProgressiveSize, SaveBest, StopOnNonFinite
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
    overrides: dict[str, Any] = (
        {} if options.layer_scale_init is None else {"layer_scale_init": options.layer_scale_init}
    )
    model = create_model(
        options.name, options.pretrained, num_classes=len(classes), drop_path=options.drop_path, **overrides
    )
    if options.weights:
        load_weights(model, options.weights)
    model.classes = classes
    model.preprocessing = Preprocessing(
        size=(options.size, options.size), mean=options.mean, std=options.std, crop_pct=options.crop_pct
    )
    return model


def train(recipe: Recipe) -> Run:
    """Train as a recipe says; progress is shown, checkpoints and metrics.csv are written to recipe.out.

    Raises:
        UserError: data, model or device cannot be had, or the loss diverges.
    """
    device = pick_device(recipe.device)
    L.seed_everything(recipe.seed, workers=True, verbose=False)
    options = recipe.model
    placeholder = Preprocessing((options.size, options.size), options.mean, options.std, options.crop_pct)
    data = ClassificationData(recipe.data, placeholder, recipe.batch_size, recipe.augmentation, recipe.workers)
    model = build_model(options, data.classes)
    if recipe.channels_last:
        model = model.to(memory_format=torch.channels_last)
    optimizer = partial(configure, epochs=recipe.epochs, options=recipe.optim)
    task = ClassificationTask(model, recipe.mixing, optimizer)
    # The order matters: SaveBest must see the averaged model before Ema takes it out again.
    best = SaveBest(recipe.out)
    callbacks: list[L.Callback] = [StopOnNonFinite(), best, RichProgressBar(), LearningRateMonitor("step")]
    if recipe.ema.decay:
        callbacks.append(Ema(recipe.ema))
    if recipe.progressive.start:
        callbacks.append(ProgressiveSize(recipe.progressive.start, options.size, recipe.progressive.share))
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
        log_every_n_steps=10,
        default_root_dir=recipe.out,
    )
    trainer.fit(task, data)
    return Run(recipe.out, recipe.out / "best.safetensors", best.best)
