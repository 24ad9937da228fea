"""Our files: safetensors that say what they are, so that loading needs to be told nothing."""

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
        model: in any form, on any device, also compiled.
        path: file to write; what was there stays whole until the new file is complete.
        metrics: measured values to keep with it, fractions where they are shares, such as {"top1": 0.812}.

    Raises:
        UserError: it is no whole model of a task, the name does not end in .safetensors, or the file cannot be written.
    """
    model = cast(TaskModel, uncompiled(model))
    if not isinstance(model, TaskModel):
        raise UserError(
            f"only a whole model can be saved, not a {type(model).__name__}: a file says how to build the model again"
        )
    target = Path(path)
    if target.suffix != ".safetensors":
        raise UserError(f"{target}: models are saved as .safetensors files")
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
    """Build the right model from a file and fill it; files of the official and timm layouts are recognized by shape.

    What those do not say is filled in: from the zoo for a released repository on the Hub, else the variant's published
    preprocessing, and ImageNet's class names where there are 1000 classes.

    Args:
        source: as in `fastvit.weights.source.read`.
        kind: that it must be: FastViT, Detector, Segmenter; by default any.

    Returns:
        A model of its own on the CPU, in the form it was saved in, in eval mode.

    Raises:
        UserError: the file is damaged, of a newer format, no FastViT, or of another kind.
    """
    return build(read(source), kind)


@overload
def build(file: StateFile) -> TaskModel: ...
@overload
def build(file: StateFile, kind: type[Model]) -> Model: ...
def build(file: StateFile, kind: type[TaskModel] = TaskModel) -> TaskModel:
    """`load` from a state dict that has been read; the model takes over its tensors."""
    description = describe(file)
    row = find_task(description.task)
    made = row.model_class()
    if not issubclass(made, kind):
        raise UserError(f"{file.name} is a model for {row.name}; this is for {getattr(kind, 'task', 'another task')}")
    tensors, config = file.tensors, description.config
    if made is FastViT:  # whose files have several layouts
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
    """What a file says of itself, or what can be told from its shapes and origin.

    Raises:
        UserError: it says something that this version cannot read, or fits no variant.
    """
    if file.info is not None:
        return Description.from_dict(file.info, file.name)
    variant, config = identify(file)
    _, source_form = recognize(file.tensors)
    released = next((row for row in ZOO.values() if row.repo == file.name), None)
    preprocessing = released.preprocessing if released else Preprocessing(crop_pct=VARIANTS[variant].crop_pct)
    classes = imagenet_classes() if config.num_classes == 1000 else None
    return Description(variant, config, source_form, classes, preprocessing.for_channels(config.in_chans))
