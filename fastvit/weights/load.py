"""Putting weights of any layout into a model, strictly, and taking them out in any layout."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, get_args

import torch
from torch import Tensor

from fastvit.errors import UserError, unknown_name
from fastvit.fusion import Form, form
from fastvit.model.backbone import Backbone
from fastvit.model.classifier import FastViT
from fastvit.model.config import FastViTConfig
from fastvit.model.task_model import TaskModel
from fastvit.model.variants import VARIANTS
from fastvit.tasks.table import find_task
from fastvit.weights.description import Description
from fastvit.weights.layouts import FORMS, Layout, differences, key_map, recognize, skeleton
from fastvit.weights.source import Source, StateFile, read

_FORM_ORDER = get_args(Form)
BACKBONE = "backbone."


@dataclass(frozen=True)
class Loaded:
    """What `load_weights` did.

    Attributes:
        layout: of the source.
        form: of the source; a later form of the model was made from it.
        head: whether what stands on the backbone came along whole; False: the model kept its own, or the part of it
            that depends on the number of classes.
    """

    layout: Layout
    form: Form
    head: bool


def load_weights(model: TaskModel | Backbone, source: Source) -> Loaded:
    """Copy weights into a model, with what their file says of preprocessing and class names.

    Every key and shape must fit, but for a head of another class count. A model of another task than classification
    takes weights of its own task, or a classifier's, of which its backbone is filled.

    Args:
        model: in any form; train or reparameterized weights are fused on the way if the model is in a later form.
        source: as in `fastvit.weights.source.read`; layout and form are recognized.

    Returns:
        What was recognized, and whether the head was taken.

    Raises:
        UserError: the weights are of another variant, damaged, or in a later form than the model; the message lists
            the differences.
    """
    file = read(source)
    loaded, description = copy_tensors(model, file), described(file)
    if description and isinstance(model, TaskModel):
        model.preprocessing = replace(model.preprocessing, **known_preprocessing(description, model.task))
        if loaded.head and description.classes:
            model.classes = description.classes
    return loaded


def described(file: StateFile) -> Description | None:
    """Return what a file of ours says of itself; None of another file."""
    return None if file.info is None else Description.from_dict(file.info, file.name)


def known_preprocessing(description: Description, task: str) -> dict[str, Any]:
    """Return the fields of `Preprocessing` that weights bring along.

    Args:
        description: of the weights.
        task: of the model that they are loaded into. Another one's backbone wants the mean and std it has learnt on.
    """
    known = description.preprocessing
    names = [field.name for field in fields(known)] if description.task == task else ["mean", "std"]
    return {name: getattr(known, name) for name in names}


def copy_tensors(model: TaskModel | Backbone, file: StateFile) -> Loaded:
    """Copy the tensors of `load_weights`, of a state dict that has been read, and nothing else."""
    description = described(file)
    if not isinstance(model, (FastViT, Backbone)):
        return _copy_into_dense(model, file, description)
    if description and not issubclass(find_task(description.task).model_class(), FastViT):
        raise UserError(f"{file.name} holds a model for {description.task}, of which nothing fits a classifier")
    layout, source_form = recognize(file.tensors)
    target_form = form(model)
    if _FORM_ORDER.index(source_form) > _FORM_ORDER.index(target_form):
        remedy = "fastvit.fuse(model)" if source_form == "fused" else "fastvit.reparameterize(model)"
        raise UserError(
            f"{file.name} is {source_form}, which cannot go back to the {target_form} form of this model: load it into "
            f"{remedy}, or get the train-form weights"
        )
    backbone_only = isinstance(model, Backbone)
    tensors, rows = to_native(file, model.config, backbone_only)
    whole = skeleton(model.config.replace(num_classes=rows), source_form)
    source_model = whole.backbone if backbone_only else whole
    source_model.load_state_dict(tensors, assign=True)
    converted = FORMS[target_form](source_model) if source_form != target_form else source_model
    state = converted.state_dict()
    if isinstance(model, Backbone):
        model.load_state_dict(state)
        return Loaded(layout, source_form, head=False)
    takes_head = rows == model.num_classes
    if not takes_head:
        warnings.warn(
            f"{file.name} has {rows} classes, the model {model.num_classes}: the head stays new, all else is loaded",
            stacklevel=3,
        )
        state = {k: v for k, v in state.items() if not k.startswith("head.")}
        state |= {f"head.{k}": v for k, v in model.head.state_dict().items()}
    model.load_state_dict(state)
    return Loaded(layout, source_form, head=takes_head)


def _copy_into_dense(model: TaskModel, file: StateFile, description: Description | None) -> Loaded:
    if description and description.task == model.task:
        return _copy_whole(model, file, description)
    return copy_tensors(model.trunk, file)


def _copy_whole(model: TaskModel, file: StateFile, description: Description) -> Loaded:
    """Weights of the same task; what depends on the number of classes stays new where that is another."""
    if description.form != form(model):
        raise UserError(
            f"{file.name} is {description.form}, the model {form(model)}: give weights in the model's form, or load "
            "the file as it is with fastvit.load"
        )
    state, classes = model.state_dict(), description.config.num_classes
    kept = {
        name: tensor
        for name, tensor in state.items()
        if classes != model.num_classes and name in file.tensors and file.tensors[name].shape != tensor.shape
    }
    tensors = file.tensors | kept
    require_fit(replace(file, tensors=tensors), state)
    model.load_state_dict(tensors)
    if classes != model.num_classes:
        warnings.warn(
            f"{file.name} has {classes} classes, the model {model.num_classes}: {len(kept)} tensors of its head stay "
            "new, all else is loaded",
            stacklevel=4,
        )
    return Loaded("native", description.form, head=classes == model.num_classes)


def require_fit(file: StateFile, expected: Mapping[str, Tensor]) -> None:
    """See that a file in our layout has just the tensors of a model.

    Raises:
        UserError: it has not; the message lists the first differences.
    """
    if lines := differences(expected, file.tensors, {}):
        more = f"; and {len(lines) - 8} more" if len(lines) > 8 else ""
        raise UserError(f"{file.name} does not fit the model: {'; '.join(lines[:8])}{more}")


def to_native(file: StateFile, config: FastViTConfig, backbone_only: bool = False) -> tuple[dict[str, Tensor], int]:
    """A state dict in our names, and its class count (0: no head).

    Args:
        file: in any layout, of a classifier or, in ours, of a backbone.
        config: what it must fit.
        backbone_only: leave the classifier out and name the rest as in a Backbone.

    Raises:
        UserError: keys or shapes do not fit the configuration; the message lists the first differences.
    """
    layout, source_form = recognize(file.tensors)
    tensors = file.tensors
    if layout == "native" and any(key.startswith("stem.") for key in tensors):
        tensors = {f"backbone.{key}": value for key, value in tensors.items()}
    rows = head_rows(tensors, layout)
    expected = skeleton(config.replace(num_classes=rows), source_form).state_dict()
    names = key_map(expected, config, layout)
    back = {theirs: ours for ours, theirs in names.items()}
    found = {back.get(key, key): value for key, value in tensors.items()}
    if backbone_only:
        classifier = [key for key in expected if not key.startswith(BACKBONE)]
        expected, found = ({k: v for k, v in state.items() if k not in classifier} for state in (expected, found))
    for key, tensor in expected.items():
        if key not in found and key.endswith("num_batches_tracked"):
            found[key] = torch.zeros(tensor.shape, dtype=tensor.dtype)
    if lines := differences(expected, found, names):
        more = f"; and {len(lines) - 8} more" if len(lines) > 8 else ""
        raise UserError(
            f"{file.name} ({layout} layout, {source_form} form) does not fit the model{_belongs_to(file)}: "
            f"{'; '.join(lines[:8])}{more}"
        )
    return {key.removeprefix(BACKBONE) if backbone_only else key: value for key, value in found.items()}, rows


def head_rows(tensors: Mapping[str, Tensor], layout: Layout) -> int:
    """Class count of a state dict; 0 where it has no head."""
    head = tensors.get("head.fc.weight" if layout == "timm" else "head.weight")
    return 0 if head is None else head.shape[0]


def identify(file: StateFile) -> tuple[str, FastViTConfig]:
    """Variant and configuration of weights that do not say them, from their names and shapes.

    Raises:
        UserError: they fit no variant of the family.
    """
    layout, source_form = recognize(file.tensors)
    shapes = {key: value.shape for key, value in file.tensors.items() if not key.endswith("num_batches_tracked")}
    rows = head_rows(file.tensors, layout)
    stem = ("patch_embed.0.", "stem.0.", "backbone.stem.0.")
    in_chans = next((t.shape[1] for k, t in file.tensors.items() if k.startswith(stem) and t.ndim == 4), 3)
    for variant in VARIANTS.values():
        config = variant.config.replace(num_classes=rows, in_chans=in_chans)
        expected = skeleton(config, source_form).state_dict()
        names = key_map(expected, config, layout)
        wanted = {names[k]: v.shape for k, v in expected.items() if not k.endswith("num_batches_tracked")}
        if wanted == shapes:
            return variant.name, config
    raise UserError(
        f"{file.name} ({layout} layout, {source_form} form) fits no variant of the family; if it is a "
        "network of yours, make it and use fastvit.load_weights(model, source)"
    )


def _belongs_to(file: StateFile) -> str:
    try:
        return f", it holds {identify(file)[0]}"
    except UserError:
        return ""


def export_weights(model: FastViT, layout: Layout) -> dict[str, Tensor]:
    """The state dict of a model under another layout's names; load_weights is its inverse.

    Args:
        model: train or reparameterized form for "official" and "timm", any for "native".
        layout: "native", "official" or "timm".

    Raises:
        UserError: the layout is unknown, or it has no fully fused form.
    """
    if layout not in get_args(Layout):
        raise unknown_name("layout", layout, get_args(Layout))
    if layout != "native" and form(model) == "fused":
        raise UserError(
            f"the {layout} layout has no place for folded norms: export the train form, or fastvit.reparameterize(it)"
        )
    state = model.state_dict()
    names = key_map(state, model.config, layout)
    return {names[key]: value for key, value in state.items()}
