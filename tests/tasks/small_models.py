"""A small network of every task in the table, whose outputs depend on the image."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

import fastvit
from fastvit.model.task_model import TaskModel
from fastvit.tasks.table import find_task
from tests.helpers import randomize, tiny
from tests.tasks.contracts import lively, make_detector, make_segmenter
from tests.tasks.test_hand_mesh import make_regressor

SIZE = fastvit.Preprocessing((64, 64))
FIT = fastvit.Preprocessing((64, 96), resize="resize_shorter")
LETTERBOX = fastvit.Preprocessing((64, 64), resize="letterbox")


def decided(model: TaskModel) -> TaskModel:
    """With a head whose linear layers tell images apart."""
    inside = set(model.trunk.modules())
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.Linear) and module not in inside:
                module.weight.mul_(50)
    return model


# Of tasks whose own networks are large; of the others, what their class makes of its defaults.
MODELS: dict[str, Callable[[], TaskModel]] = {
    "classification": lambda: decided(randomize(tiny(num_classes=5, attention=True, preprocessing=SIZE))),
    "detection": lambda: lively(make_detector("faster_rcnn", preprocessing=FIT)),
    "segmentation": lambda: randomize(make_segmenter("fpn", preprocessing=FIT)),
    "hand_mesh": lambda: lively(make_regressor("mlp", preprocessing=LETTERBOX)),
}


def small_model(task: str) -> TaskModel:
    """In eval mode and train form."""
    torch.manual_seed(0)
    if task in MODELS:
        return MODELS[task]().eval()
    return decided(randomize(find_task(task).model_class()(tiny().config, preprocessing=SIZE))).eval()


def leaves(value: object) -> list[float]:
    """The numbers in a record for JSON, in order."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        return [number for part in value for number in leaves(part)]
    return [float(value)] if isinstance(value, (int, float)) else []
