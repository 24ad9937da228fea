"""Create the network, the LightningModule and the data of a recipe."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch

from fastvit.collapse import collapse_branches
from fastvit.data.module import RunData
from fastvit.model.task_model import TaskModel
from fastvit.tasks.table import find_task
from fastvit.training.norms import freeze_norms
from fastvit.training.optim import configure
from fastvit.training.options import Recipe
from fastvit.training.task import Task
from fastvit.weights.load import copy_tensors, described, known_preprocessing
from fastvit.weights.source import read


def build(recipe: Recipe) -> tuple[Task, RunData]:
    """Return the LightningModule that trains a recipe's network, and the data.

    The classes of the data determine the size of the head; the preprocessing of the network determines the batches.

    Raises:
        UserError: the data cannot be read, the weights cannot be loaded, or they do not fit each other.
    """
    spec = find_task(recipe.task)
    images = spec.open_images(recipe)
    model = build_model(recipe, images.classes)
    data = spec.create_data(recipe, images, model.preprocessing)
    if recipe.batchnorm == "frozen":
        freeze_norms(model.trunk)
    if recipe.model.freeze:
        freeze_norms(model.trunk)
        model.trunk.requires_grad_(False)
    collapse_branches(model, recipe.model.collapse_branches)
    if recipe.channels_last:
        model = model.to(memory_format=torch.channels_last)
    if recipe.compile:
        model.compiled_part.compile()
    return spec.create_module(recipe, model, partial(configure, epochs=recipe.epochs, options=recipe.optim)), data


def build_model(recipe: Recipe, classes: tuple[str, ...]) -> TaskModel:
    """Return the network of a recipe, with the recipe's weights and the classes of the data.

    Preprocessing comes from the recipe; fields that the recipe leaves at None come from the weights, else from the
    variant.

    Raises:
        UserError: the weights cannot be read, or do not fit the network.
    """
    options, spec = recipe.model, find_task(recipe.task)
    file = read(options.weights) if options.weights else None
    description = described(file) if file else None
    known = known_preprocessing(description, recipe.task) if description else {}
    named = {"mean": options.mean, "std": options.std, "crop_pct": options.crop_pct}
    backbone: dict[str, Any] = {
        "drop_path": options.drop_path,
        "preprocessing": {
            **known,
            "size": spec.image_size(recipe),
            **{name: value for name, value in named.items() if value is not None},
        },
    }
    if options.layer_scale_init is not None:
        backbone["layer_scale_init"] = options.layer_scale_init
    model = spec.create_model(recipe, classes, backbone)
    if file:
        copy_tensors(model, file)
    return model
