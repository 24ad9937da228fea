"""Training, top to bottom: recipe -> data, task, Trainer -> checkpoints and a report."""

from __future__ import annotations

import errno
import logging
import os
import signal
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, cast

import lightning as L
import torch
from lightning.fabric.utilities.rank_zero import rank_zero_only
from rich.console import Console
from torch.optim.swa_utils import update_bn

from fastvit.create import create_model
from fastvit.data.transforms import normalise
from fastvit.device import pick_device
from fastvit.errors import UserError
from fastvit.evaluation.evaluate import evaluate
from fastvit.evaluation.run_report import write_run_report
from fastvit.model.classifier import FastViT
from fastvit.tasks.classification.data import ClassificationData
from fastvit.tasks.classification.module import ClassificationTask
from fastvit.training.callbacks import (
    BEST,
    TRAINED,
    DecayWeights,
    Ema,
    LogSteps,
    ProgressBar,
    SaveBest,
    SeedSteps,
    StopOnNonFinite,
)
from fastvit.training.checkpoint import STATE, AtomicCheckpointIO, SaveState, StopRequest
from fastvit.training.loggers import make_loggers
from fastvit.training.optim import configure
from fastvit.training.options import ModelOptions, Recipe
from fastvit.training.run_folder import RECALIBRATED, begin, claim, state_to_resume
from fastvit.training.sync_norm import SyncNorms
from fastvit.training.teacher import load_teacher
from fastvit.weights.load import load_weights
from fastvit.weights.native import save

LOG_EVERY = 10


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
        model = channels_last(model)
    if recipe.compile:
        model.compile()
    teacher = load_teacher(recipe.distillation) if recipe.distillation.teacher else None
    optimizer = partial(configure, epochs=recipe.epochs, options=recipe.optim)
    task = ClassificationTask(
        model, recipe.mixing, optimizer, recipe.augmentation.random_erasing, teacher, recipe.distillation
    )
    return task, data


def channels_last(model: FastViT) -> FastViT:
    """The model with its convolutions in channels-last memory, but for the first one."""
    model = model.to(memory_format=torch.channels_last)
    # oneDNN's weight gradient of a strided 1x1 convolution on 3 channels overruns its memory on CPUs without AVX-512
    # (torch 2.14.1: "double free or corruption"); in the plain format another routine does it.
    model.backbone.stem[0].to(memory_format=torch.contiguous_format)
    return model


def train(recipe: Recipe, callbacks: Sequence[L.Callback] = ()) -> Run:
    """Train as a recipe says; progress is shown, and all that comes of it is in the folder recipe.out.

    Args:
        recipe: what to do.
        callbacks: of yours, called after ours.

    Raises:
        UserError: data, model or device cannot be had, the folder holds a run already, the disk is full, or the loss
            diverges.
        Terminated: SIGTERM or SIGUSR1 came; the run can be resumed.
        KeyboardInterrupt: interrupted; the run can be resumed from the last checkpoint.
    """
    device = pick_device(recipe.device)
    claim(recipe)
    request = StopRequest()
    with request.listening(), _quiet(), _full_disk_named(recipe.out):
        L.seed_everything(recipe.seed, workers=True, verbose=False)
        task, data = build(recipe)
        begin(recipe)
        best = SaveBest(recipe.out)
        trainer = _trainer(recipe, device, _callbacks(recipe, device, best, request, callbacks))
        _announce(recipe, task, data, device)
        _fit(trainer, task, data, state_to_resume(recipe))
        if recipe.ema.recalibrate:
            _recalibrate(task, data, recipe, torch.device(task.device))
        if trainer.is_global_zero:
            write_run_report(recipe.out)
    return Run(recipe.out, recipe.out / BEST, best.best)


def _callbacks(
    recipe: Recipe, device: str, best: SaveBest, request: StopRequest, more: Sequence[L.Callback]
) -> list[L.Callback]:
    """In the order in which they must see a batch or an epoch."""
    chosen: list[L.Callback] = [
        SeedSteps(recipe.seed),
        StopOnNonFinite(1 if device == "cpu" else LOG_EVERY, recipe.out / STATE),
        LogSteps(LOG_EVERY),
        best,  # must see the averaged model before Ema takes it out again
        ProgressBar(),
    ]
    if recipe.optim.weight_decay_end is not None:
        chosen.append(DecayWeights(recipe.optim))
    if recipe.ema.decay:
        chosen.append(Ema(recipe.ema, recipe.out / TRAINED))
    # The state is written when everything else has had its turn.
    return [*chosen, *more, SaveState(recipe.out, recipe.checkpoint_every, request)]


def _trainer(recipe: Recipe, device: str, callbacks: list[L.Callback]) -> L.Trainer:
    devices, nodes = _processes(recipe)
    return L.Trainer(
        accelerator="gpu" if device == "cuda" else device,
        devices=devices,
        num_nodes=nodes,
        precision=recipe.precision,
        max_epochs=recipe.epochs + recipe.optim.cooldown_epochs,
        accumulate_grad_batches=recipe.accumulate,
        gradient_clip_val=recipe.optim.clip,
        sync_batchnorm=recipe.sync_bn,
        callbacks=callbacks,
        plugins=[AtomicCheckpointIO(), *([SyncNorms()] if recipe.sync_bn else [])],
        logger=make_loggers(recipe.out, recipe.wandb),
        enable_model_summary=False,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,  # our samplers share out the images
        default_root_dir=recipe.out,
    )


def _processes(recipe: Recipe) -> tuple[int, int]:
    """Devices a machine, and machines: as torchrun or SLURM has started us, else as the recipe says."""
    starters = (("LOCAL_WORLD_SIZE", "GROUP_WORLD_SIZE"), ("SLURM_NTASKS_PER_NODE", "SLURM_NNODES"))
    for names in starters:
        if all(name in os.environ for name in names):
            devices, nodes = (int(os.environ[name]) for name in names)
            return devices, nodes
    return recipe.devices, recipe.nodes


@rank_zero_only
def _announce(recipe: Recipe, task: ClassificationTask, data: ClassificationData, device: str) -> None:
    devices, nodes = _processes(recipe)
    batch = recipe.batch_size * recipe.accumulate * devices * nodes
    parameters = sum(p.numel() for p in task.model.parameters())
    epochs = recipe.epochs + recipe.optim.cooldown_epochs
    Console(stderr=True, highlight=False, soft_wrap=True).print(
        f"{task.model.variant}, {parameters / 1e6:.2f} M parameters, {len(data.classes)} classes; "
        f"{len(data.train_images):,} training and {len(data.test_images):,} held-out images; {epochs} epochs, "
        f"{batch} images a step on {devices * nodes} x {device}; {recipe.out}"
    )


def _recalibrate(task: ClassificationTask, data: ClassificationData, recipe: Recipe, device: torch.device) -> None:
    """Measure norm statistics anew for the averaged weights, and save what that gives under a name of its own."""
    model, preprocessing = cast(FastViT, task.model.to(device)), data.preprocessing
    batches = islice(data.train_dataloader(), recipe.ema.recalibrate)
    update_bn((normalise(images.to(device), preprocessing) for images, _ in batches), model)
    model.eval()
    result = evaluate(
        lambda pixels: model(normalise(pixels, preprocessing)), data.val_dataloader(), model.num_classes, device
    )
    if rank_zero_only.rank == 0:
        save(model, recipe.out / RECALIBRATED, result.metrics)


def _fit(trainer: L.Trainer, task: ClassificationTask, data: ClassificationData, state: Path | None) -> None:
    """Fit, and let an interruption be one: Lightning turns it into exit(1) and leaves Ctrl-C ignored."""
    handler = signal.getsignal(signal.SIGINT)
    try:
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
            f"cannot write in {out}: {error.strerror}; make room, then fastvit train --resume {out}"
        ) from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Without Lightning's advertisements and hints about things that are meant to be as they are."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.WARNING)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*does not have many workers.*")
        warnings.filterwarnings("ignore", message=".*LeafSpec.*")
        warnings.filterwarnings("ignore", message=".*number of training batches .* smaller than the logging interval.*")
        warnings.filterwarnings("ignore", message=".*your dataloader is not resumable.*")  # its sampler is
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
