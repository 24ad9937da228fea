"""The network, the task and the data of a recipe."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import torch

from fastvit.create import create_model
from fastvit.device import pick_device
from fastvit.model.classifier import FastViT
from fastvit.tasks.classification.data import ClassificationData
from fastvit.tasks.classification.module import ClassificationTask
from fastvit.training.optim import configure
from fastvit.training.options import ModelOptions, Recipe
from fastvit.training.run_folder import SPLIT
from fastvit.training.teacher import load_teacher
from fastvit.weights.load import load_weights


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
    data = open_data(recipe)
    model = build_model(recipe.model, data.classes)
    data.preprocessing = model.preprocessing
    if recipe.channels_last:
        model = channels_last(model)
    if recipe.compile:
        # On a CPU inductor would turn every convolution into channels-last, also the one that must not be.
        on_cpu = pick_device(recipe.device) == "cpu"
        model.compile(options={"layout_optimization": False} if on_cpu else None)
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


def open_data(recipe: Recipe) -> ClassificationData:
    """The data of a recipe, without the preprocessing, which is the model's.

    Raises:
        UserError: there is no such data, or it does not fit the recipe.
    """
    return ClassificationData(
        recipe.data,
        recipe.batch_size,
        recipe.augmentation,
        recipe.workers,
        seed=recipe.seed,
        val_fraction=recipe.val_fraction,
        split_file=recipe.out / SPLIT if recipe.resume else None,
        allow_damaged=recipe.allow_damaged,
    )
