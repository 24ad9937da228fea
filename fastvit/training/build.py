"""The network, the task and the data of a recipe."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from fastvit.collapse import set_train_form
from fastvit.create import create_detector, create_hand_regressor, create_model, create_segmenter
from fastvit.data.module import RunData
from fastvit.model.classifier import FastViT
from fastvit.model.task_model import TaskModel
from fastvit.runs.files import SPLIT
from fastvit.tasks.classification.data import ClassificationData
from fastvit.tasks.classification.module import ClassificationTask
from fastvit.tasks.classification.teacher import load_teacher
from fastvit.training.norms import freeze_norms
from fastvit.training.optim import configure
from fastvit.training.options import Recipe
from fastvit.training.task import Configure, Task
from fastvit.weights.load import load_weights

if TYPE_CHECKING:
    from fastvit.tasks.detection.model import Detector
    from fastvit.tasks.hand_mesh.model import HandRegressor
    from fastvit.tasks.segmentation.model import Segmenter

Sized = tuple[TaskModel, tuple[int, int]]


def build_model(recipe: Recipe, classes: tuple[str, ...]) -> TaskModel:
    """The network of a recipe, with the data's classes and the recipe's preprocessing."""
    options = recipe.model
    scale = options.layer_scale_init
    backbone: dict[str, Any] = {"drop_path": options.drop_path} | ({} if scale is None else {"layer_scale_init": scale})
    model, size = _MODELS[recipe.task](recipe, classes, backbone)
    if options.weights:
        load_weights(model, options.weights)
    model.classes = classes
    named = {"mean": options.mean, "std": options.std, "crop_pct": options.crop_pct}
    changes: dict[str, Any] = {name: value for name, value in named.items() if value is not None}
    model.preprocessing = replace(model.preprocessing, size=size, **changes)
    return model


def _classifier(recipe: Recipe, classes: tuple[str, ...], backbone: dict[str, Any]) -> Sized:
    options = recipe.model
    model = create_model(options.name, options.pretrained, num_classes=len(classes), **backbone)
    return model, (options.size, options.size)


def _detector(recipe: Recipe, classes: tuple[str, ...], backbone: dict[str, Any]) -> Sized:
    own = asdict(recipe.detection.network)
    model = create_detector(recipe.model.name, recipe.model.pretrained, classes=classes, **own, **backbone)
    return model, recipe.detection.size


def _segmenter(recipe: Recipe, classes: tuple[str, ...], backbone: dict[str, Any]) -> Sized:
    own = asdict(recipe.segmentation.network)
    model = create_segmenter(recipe.model.name, recipe.model.pretrained, classes=classes, **own, **backbone)
    return model, recipe.segmentation.size


def _hand_regressor(recipe: Recipe, classes: tuple[str, ...], backbone: dict[str, Any]) -> Sized:
    from fastvit.tasks.hand_mesh.freihand import hand_of

    own, hand = asdict(recipe.hand_mesh.network), hand_of(recipe.data, recipe.hand_mesh.hand)
    model = create_hand_regressor(recipe.model.name, recipe.model.pretrained, hand=hand, **own, **backbone)
    return model, (recipe.hand_mesh.size, recipe.hand_mesh.size)


def build(recipe: Recipe) -> tuple[Task, RunData]:
    """The task and the data of a recipe.

    Raises:
        UserError: one of them cannot be had.
    """
    # The data's classes make the head, the model's preprocessing makes the data's transforms.
    data = open_data(recipe)
    model = build_model(recipe, data.classes)
    data.preprocessing = model.preprocessing
    if recipe.norms == "frozen":
        freeze_norms(model.trunk)
    if recipe.model.freeze:
        freeze_norms(model.trunk)
        model.trunk.requires_grad_(False)
    set_train_form(model, recipe.model.train_form)
    if recipe.channels_last:
        model = model.to(memory_format=torch.channels_last)
    if recipe.compile:
        # Detection chooses its boxes by their values: what is compiled of it is what does not.
        network = model.trunk if recipe.task == "detection" else model
        network.compile()
    return _TASKS[recipe.task](recipe, model, partial(configure, epochs=recipe.epochs, options=recipe.optim)), data


def _classification(recipe: Recipe, model: FastViT, optimizer: Configure) -> Task:
    teacher = load_teacher(recipe.distillation) if recipe.distillation.teacher else None
    return ClassificationTask(
        model, recipe.mixing, optimizer, recipe.augmentation.random_erasing, teacher, recipe.distillation
    )


def _detection(recipe: Recipe, model: Detector, optimizer: Configure) -> Task:
    from fastvit.tasks.detection.module import DetectionTask

    return DetectionTask(model, optimizer)


def _segmentation(recipe: Recipe, model: Segmenter, optimizer: Configure) -> Task:
    from fastvit.tasks.segmentation.module import SegmentationTask

    return SegmentationTask(model, recipe.segmentation, optimizer)


def _hand_mesh(recipe: Recipe, model: HandRegressor, optimizer: Configure) -> Task:
    from fastvit.tasks.hand_mesh.module import HandMeshTask

    return HandMeshTask(model, recipe.hand_mesh.losses, optimizer)


# Recipe, classes, options of the backbone -> the network, and the two sides of its images, as Preprocessing has them.
_MODELS: dict[str, Callable[[Recipe, tuple[str, ...], dict[str, Any]], Sized]] = {
    "classification": _classifier,
    "detection": _detector,
    "segmentation": _segmenter,
    "hand_mesh": _hand_regressor,
}
_TASKS: dict[str, Callable[[Recipe, Any, Configure], Task]] = {
    "classification": _classification,
    "detection": _detection,
    "segmentation": _segmentation,
    "hand_mesh": _hand_mesh,
}


def open_data(recipe: Recipe) -> RunData:
    """The data of a recipe, without the preprocessing, which is the model's.

    Raises:
        UserError: there is no such data, or it does not fit the recipe.
    """
    shared: dict[str, Any] = {
        "workers": recipe.workers,
        "seed": recipe.seed,
        "allow_damaged": recipe.allow_damaged,
    }
    if recipe.task == "detection":
        from fastvit.tasks.detection.data import DetectionData

        return DetectionData(recipe.data, recipe.batch_size, recipe.detection, **shared)
    if recipe.task == "segmentation":
        from fastvit.tasks.segmentation.data import SegmentationData

        return SegmentationData(recipe.data, recipe.batch_size, recipe.segmentation, **shared)
    if recipe.task == "hand_mesh":
        from fastvit.tasks.hand_mesh.data import HandMeshData

        return HandMeshData(recipe.data, recipe.batch_size, recipe.hand_mesh, **shared)
    return ClassificationData(
        recipe.data,
        recipe.batch_size,
        recipe.augmentation,
        val_fraction=recipe.val_fraction,
        split_file=recipe.out / SPLIT if recipe.resume else None,
        **shared,
    )
