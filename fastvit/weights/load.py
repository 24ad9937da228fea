"""Load weights of any layout into a model, with a strict check, and export them in any layout."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
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
    """Result of `load_weights`.

    Attributes:
        layout: layout of the source.
        form: form of the source; it was converted if the model is in a later form.
        head: whether the head was loaded; False if the model keeps its own head, or the part of it that depends on the
            number of classes.
    """

    layout: Layout
    form: Form
    head: bool


def load_weights(model: TaskModel | Backbone, source: Source) -> Loaded:
    """Load weights into a model in place, and the preprocessing and class names of their file.

    Every key and shape must match, except for a head with another number of classes. A model for detection,
    segmentation or hand mesh loads weights of its own task, or the backbone of a classifier's weights.

    Args:
        model: model in any form; train or reparameterized weights are converted if the model is in a later form.
        source: weights, as in `fastvit.weights.source.read`; layout and form are recognized.

    Returns:
        The recognized layout and form, and whether the head was loaded.

    Raises:
        UserError: the weights are of another variant, corrupt, or in a later form than the model; the message lists
            the differences, or the variants if these differ.
    """
    file = read(source)
    loaded, description = copy_tensors(model, file), described(file)
    if description and isinstance(model, TaskModel):
        model.preprocessing = replace(model.preprocessing, **known_preprocessing(description, model.task))
        if loaded.head and description.classes:
            model.classes = description.classes
    return loaded


def described(file: StateFile) -> Description | None:
    """Return the description in a file of fastvit; None for other files."""
    return None if file.info is None else Description.from_dict(file.info, file.name)


def known_preprocessing(description: Description, task: str) -> dict[str, Any]:
    """Return the fields of `Preprocessing` that a model takes from weights.

    Args:
        description: description of the weights.
        task: task of the model. From weights of another task it takes mean and std only.
    """
    known = description.preprocessing
    names = [field.name for field in fields(known)] if description.task == task else ["mean", "std"]
    return {name: getattr(known, name) for name in names}


def copy_tensors(model: TaskModel | Backbone, file: StateFile) -> Loaded:
    """Load only the tensors of a state dict into a model; `load_weights` describes the checks.

    Args:
        model: model in any form.
        file: state dict that has been read.

    Raises:
        UserError: the weights do not fit the model.
    """
    description = described(file)
    if not isinstance(model, (FastViT, Backbone)):
        return _copy_trunk(model, file, description)
    if description and not issubclass(find_task(description.task).model_class(), FastViT):
        raise UserError(f"{file.name} is a model for {description.task}, whose weights do not fit a classifier")
    layout, source_form = recognize(file.tensors)
    target_form = form(model)
    if _FORM_ORDER.index(source_form) > _FORM_ORDER.index(target_form):
        remedy = "fastvit.fuse(model)" if source_form == "fused" else "fastvit.reparameterize(model)"
        raise UserError(
            f"{file.name} is {source_form} and cannot be converted back to the {target_form} form of this model: load "
            f"it into {remedy}, or use the weights in train form"
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
            f"{file.name} has {rows} classes, the model {model.num_classes}: all weights but the head are loaded",
            stacklevel=3,
        )
        state = {k: v for k, v in state.items() if not k.startswith("head.")}
        state |= {f"head.{k}": v for k, v in model.head.state_dict().items()}
    model.load_state_dict(state)
    return Loaded(layout, source_form, head=takes_head)


def _copy_trunk(model: TaskModel, file: StateFile, description: Description | None) -> Loaded:
    if description and description.task == model.task:
        return _copy_whole(model, file, description)
    return copy_tensors(model.trunk, file)


def _copy_whole(model: TaskModel, file: StateFile, description: Description) -> Loaded:
    """Load weights of the same task, except tensors that depend on the number of classes if that differs."""
    if description.form != form(model):
        raise UserError(
            f"{file.name} is {description.form}, the model {form(model)}: give weights in the form of the model, or "
            "load the file with fastvit.load"
        )
    state, classes = model.state_dict(), description.config.num_classes
    kept = {
        name: tensor
        for name, tensor in state.items()
        if classes != model.num_classes and name in file.tensors and file.tensors[name].shape != tensor.shape
    }
    tensors = file.tensors | kept
    variants = description.variant, model.variant
    require_fit(replace(file, tensors=tensors), state, variants if variants[0] != variants[1] else None)
    model.load_state_dict(tensors)
    if classes != model.num_classes:
        warnings.warn(
            f"{file.name} has {classes} classes, the model {model.num_classes}: all weights are loaded but "
            f"{len(kept)} tensors of the head",
            stacklevel=4,
        )
    return Loaded("native", description.form, head=classes == model.num_classes)


def require_fit(file: StateFile, expected: Mapping[str, Tensor], variants: tuple[str, str] | None = None) -> None:
    """Check that a file in the native layout has exactly the tensors of a model.

    Args:
        file: state dict that has been read.
        expected: state dict of the model.
        variants: variants of the file and of the model, if they differ.

    Raises:
        UserError: tensors are missing, unexpected or of another shape; the message names the variants if they differ,
            else it lists the first differences.
    """
    if lines := differences(expected, file.tensors, {}):
        raise _misfit(file.name, f"{file.name} does not fit the model", lines, variants)


def _misfit(name: str, what: str, lines: Sequence[str], variants: tuple[str, str] | None) -> UserError:
    """Return the error for weights that do not fit: the variants of the file and the model, else the differences."""
    if variants:
        theirs, ours = variants
        return UserError(f"{name} contains {theirs}, but the model is {ours}: give weights of the model's variant")
    more = f"; and {len(lines) - 8} more" if len(lines) > 8 else ""
    return UserError(f"{what}: {'; '.join(lines[:8])}{more}")


def to_native(file: StateFile, config: FastViTConfig, backbone_only: bool = False) -> tuple[dict[str, Tensor], int]:
    """Return a state dict with native names, and the number of classes (0 without a head).

    Args:
        file: state dict of a classifier in any layout, or of a backbone in the native layout.
        config: configuration that the tensors must fit.
        backbone_only: leave out the head, and return the names of a `Backbone`.

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
        what = f"{file.name} ({layout} layout, {source_form} form) does not fit the model"
        raise _misfit(file.name, what, lines, _variants(file, config))
    return {key.removeprefix(BACKBONE) if backbone_only else key: value for key, value in found.items()}, rows


def head_rows(tensors: Mapping[str, Tensor], layout: Layout) -> int:
    """Return the number of classes of a state dict; 0 if it has no head."""
    head = tensors.get("head.fc.weight" if layout == "timm" else "head.weight")
    return 0 if head is None else head.shape[0]


def identify(file: StateFile) -> tuple[str, FastViTConfig]:
    """Return the variant and the configuration of weights without a description, by their names and shapes.

    Raises:
        UserError: the names and shapes are not those of any variant.
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
        f"{file.name} ({layout} layout, {source_form} form) does not fit any variant; if it is a custom "
        "network, create the model and use fastvit.load_weights(model, source)"
    )


def _variants(file: StateFile, config: FastViTConfig) -> tuple[str, str] | None:
    """Return the variants of a file and of a model's configuration; None if they are equal or the file has none."""
    try:
        theirs = identify(file)[0]
    except UserError:
        return None
    names = [row.name for row in VARIANTS.values() if _architecture(row.config) == _architecture(config)]
    return None if theirs in names else (theirs, names[0] if names else "a custom network")


def _architecture(config: FastViTConfig) -> FastViTConfig:
    """Return a configuration without what is set for the data or for training."""
    return config.replace(num_classes=0, in_chans=3, drop_path=0.0, layer_scale_init=1.0)


def export_weights(model: FastViT, layout: Layout) -> dict[str, Tensor]:
    """Return the state dict of a model with the parameter names of a layout; load_weights is the inverse.

    Args:
        model: model in train or reparameterized form; for "native" in any form.
        layout: "native", "official" or "timm".

    Raises:
        UserError: the layout is unknown, or the model is fused and the layout is not "native".
    """
    if layout not in get_args(Layout):
        raise unknown_name("layout", layout, get_args(Layout))
    if layout != "native" and form(model) == "fused":
        raise UserError(
            f"the {layout} layout has no fused form, and a fused model cannot be un-fused: load its checkpoint in "
            "train form, and export that or fastvit.reparameterize of it"
        )
    state = model.state_dict()
    names = key_map(state, model.config, layout)
    return {names[key]: value for key, value in state.items()}
