"""Save and load models as safetensors files with a description, so that loading needs no further arguments."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar, cast, overload

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file

from fastvit.data.imagenet import imagenet_classes
from fastvit.errors import UserError
from fastvit.files import atomic
from fastvit.fusion import uncompiled
from fastvit.model.classifier import FastViT
from fastvit.model.preprocessing import Preprocessing
from fastvit.model.task_model import TaskModel
from fastvit.model.variants import VARIANTS
from fastvit.tasks.table import find_task
from fastvit.weights.description import METADATA_KEY, Description
from fastvit.weights.layouts import FORMS, recognize
from fastvit.weights.load import identify, require_fit, to_native
from fastvit.weights.source import Source, StateFile, read
from fastvit.weights.zoo import ZOO

Model = TypeVar("Model", bound=TaskModel)


def save(model: TaskModel, path: str | Path, metrics: Mapping[str, float] | None = None) -> Path:
    """Write a model to a .safetensors file with its variant, form, configuration, class names and preprocessing.

    Args:
        model: model in any form and on any device, also compiled.
        path: file to write; an existing file is replaced when the new one is complete.
        metrics: measured values to save with the model; shares are fractions, such as {"top1": 0.812}.

    Returns:
        The path of the file.

    Raises:
        UserError: the model is not a complete model of a task, the name does not end in .safetensors, or the file
            cannot be written.
    """
    model = cast(TaskModel, uncompiled(model))
    if not isinstance(model, TaskModel):
        raise UserError(
            f"only a complete model can be saved, not a {type(model).__name__}: the file describes how to create it"
        )
    target = Path(path)
    if target.suffix != ".safetensors":
        raise UserError(f"{target}: give a file name that ends in .safetensors")
    info = Description.of(model, metrics).to_dict()
    try:
        with atomic(target) as part:
            tensors = {key: value.detach().cpu().contiguous() for key, value in model.state_dict().items()}
            save_file(tensors, part, metadata={METADATA_KEY: json.dumps(info), "format": "pt"})
    except SafetensorError as error:
        raise UserError(f"cannot write {target}: {error}") from error
    return target


@overload
def load(source: Source) -> TaskModel: ...
@overload
def load(source: Source, kind: type[Model]) -> Model: ...
def load(source: Source, kind: type[TaskModel] = TaskModel) -> TaskModel:
    """Load a model from a file; the variant, the task and the form are recognized.

    Files of the official and timm layouts have no description. For these, the variant is recognized by its shapes, the
    preprocessing is that of the released weights on the Hub, else the published one of the variant, and the class names
    are ImageNet's if there are 1000 classes.

    Args:
        source: weights, as in `fastvit.weights.source.read`.
        kind: class that the model must have, such as FastViT, Detector or Segmenter; by default any.

    Returns:
        A new model on the CPU in eval mode, in the form that it was saved in.

    Raises:
        UserError: the file is corrupt, has a newer format, is not a FastViT, or its model is not a `kind`.
    """
    return build(read(source), kind)


@overload
def build(file: StateFile) -> TaskModel: ...
@overload
def build(file: StateFile, kind: type[Model]) -> Model: ...
def build(file: StateFile, kind: type[TaskModel] = TaskModel) -> TaskModel:
    """Create a model from a state dict that has been read, as `load` does; the model uses its tensors without a copy.

    Args:
        file: state dict that has been read.
        kind: class that the model must have.

    Raises:
        UserError: the file does not fit, or its model is not a `kind`.
    """
    description = describe(file)
    row = find_task(description.task)
    made = row.model_class()
    if not issubclass(made, kind):
        needed = getattr(kind, "task", kind.__name__)
        raise UserError(f"{file.name} is a {row.name} model; a {needed} model is needed here")
    tensors, config = file.tensors, description.config
    if made is FastViT:  # the files of classifiers have several layouts
        tensors, rows = to_native(file, config)
        config = config.replace(num_classes=rows)
    options = {} if description.options is None else {"options": description.options}
    with torch.device("meta"):
        classes, preprocessing = description.classes, description.preprocessing
        train_form = made(config, description.variant, classes=classes, preprocessing=preprocessing, **options)
        model = FORMS[description.form](train_form)
    if made is not FastViT:
        require_fit(file, model.state_dict())
    model.load_state_dict(tensors, assign=True)
    return model.eval()


def describe(file: StateFile) -> Description:
    """Return the description of a file; without one, it is derived from the shapes and the repository.

    Raises:
        UserError: this version cannot read the description, or the shapes do not fit any variant.
    """
    if file.info is not None:
        return Description.from_dict(file.info, file.name)
    variant, config = identify(file)
    _, source_form = recognize(file.tensors)
    released = next((row for row in ZOO.values() if row.repo == file.name), None)
    preprocessing = released.preprocessing if released else Preprocessing(crop_pct=VARIANTS[variant].crop_pct)
    classes = imagenet_classes() if config.num_classes == 1000 else None
    return Description(variant, config, source_form, classes, preprocessing.for_channels(config.in_chans))
