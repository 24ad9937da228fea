"""Making models by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from typing import Any, TypeVar

from fastvit.data.imagenet import imagenet_classes
from fastvit.errors import UserError
from fastvit.model.backbone import Backbone
from fastvit.model.classifier import FastViT
from fastvit.model.preprocessing import Preprocessing
from fastvit.model.task_model import TaskModel
from fastvit.model.variants import find_variant
from fastvit.weights.load import copy_tensors
from fastvit.weights.source import StateFile, read
from fastvit.weights.zoo import find_weights

Model = TypeVar("Model", bound=TaskModel)


def create_model(
    name: str,
    pretrained: bool | str = False,
    num_classes: int | None = None,
    in_chans: int = 3,
    drop_path: float = 0.0,
    *,
    classes: Sequence[str] | None = None,
    preprocessing: Mapping[str, Any] | None = None,
    **overrides: Any,
) -> FastViT:
    """A FastViT classifier in train form.

    Args:
        name: a variant ("fastvit_sa12", or "sa12" for short), or a variant with the tag of released weights
            ("fastvit_sa12.apple_dist_in1k"), which are then loaded.
        pretrained: True for the default weights of the variant, or a tag.
        num_classes: of the head, 0 for none; by default as many as there are names, or 1000, or what the weights have.
            Another count than theirs keeps a new head.
        in_chans: channels of the images; pretrained stems are adapted to other counts than 3.
        drop_path: stochastic depth of the last block.
        classes: names of the classes; by default ImageNet's with released weights for 1000 classes.
        preprocessing: fields of `Preprocessing` that differ from those of the weights or the variant, such as
            {"size": (192, 192)}.
        overrides: other fields of `fastvit.model.config.FastViTConfig`.

    Raises:
        UserError: no such variant, tag or option; or the weights cannot be had.
    """
    variant = find_variant(name.partition(".")[0])
    tag = pretrained if isinstance(pretrained, str) else name.partition(".")[2]
    weights = find_weights(f"{variant.name}.{tag}") if pretrained or tag else None
    count = class_count(num_classes, classes, weights.num_classes if weights else 1000)
    if classes is None and weights and weights.num_classes == 1000 == count:
        classes = imagenet_classes()
    config = variant.config.replace(num_classes=count, in_chans=in_chans, drop_path=drop_path, **overrides)
    known = weights.preprocessing if weights else Preprocessing(crop_pct=variant.crop_pct)
    own = known.for_channels(in_chans).changed(preprocessing)
    model = FastViT(config, variant.name, classes=classes, preprocessing=own)
    if weights:
        copy_tensors(model, _with_channels(read(weights.repo), in_chans))
    return model


def create_backbone(
    name: str, pretrained: bool | str = False, in_chans: int = 3, drop_path: float = 0.0, **overrides: Any
) -> Backbone:
    """The four stages of a variant without a head; see `create_model` for the arguments.

    Calling it on (B, in_chans, H, W) images gives a list of maps, (B, channels[i], H / strides[i], W / strides[i])
    rounded up, at strides 4, 8, 16, 32 (MCi3 and MCi4 have a fifth stage).
    """
    if "num_classes" in overrides:
        raise UserError("a backbone has no classes; use create_model for a classifier")
    return create_model(name, pretrained, in_chans=in_chans, drop_path=drop_path, **overrides).backbone


def _with_channels(file: StateFile, in_chans: int) -> StateFile:
    """Stem weights for another number of image channels, by timm's rule (sum for gray, else repeat and rescale)."""
    if in_chans == 3:
        return file
    from timm.models import adapt_input_conv

    first = {
        k: adapt_input_conv(in_chans, v) for k, v in file.tensors.items() if k.startswith("stem.0.") and v.ndim == 4
    }
    return StateFile(file.tensors | first, file.info, file.name)


def create_on_backbone(
    kind: type[Model],
    options: Any,
    name: str,
    pretrained: bool | str,
    num_classes: int,
    classes: Sequence[str] | None = None,
    preprocessing: Mapping[str, Any] | None = None,
    **backbone: Any,
) -> Model:
    """Return a task's network in train form, with the backbone of a classifier.

    Args:
        kind: the network's class.
        options: what it is built from beside the backbone.
        name: as in `create_model`; weights of a classifier fill the backbone.
        pretrained: as in `create_model`.
        num_classes: how many classes there are.
        classes: their names.
        preprocessing: fields of `Preprocessing` that differ from the class's, and from mean and std of the weights.
        backbone: other arguments of `create_model`.

    Raises:
        UserError: no such variant, tag or option; less than one class; or the weights cannot be had.
    """
    if num_classes < 1:
        raise UserError(f"num_classes must be at least 1, got {num_classes}")
    classifier = create_model(name, pretrained, **backbone)
    known = classifier.preprocessing
    own = replace(kind.default_preprocessing, mean=known.mean, std=known.std, interpolation="bilinear")
    model = kind(
        classifier.config.replace(num_classes=num_classes),
        classifier.variant,
        classes=classes,
        preprocessing=own.changed(preprocessing),
        options=options,
    )
    model.trunk.load_state_dict(classifier.backbone.state_dict())
    return model


def class_count(num_classes: int | None, classes: Sequence[str] | None, default: int) -> int:
    """Return how many classes a network has: as asked for, as many as there are names, or by default."""
    return num_classes if num_classes is not None else len(classes) if classes else default


def split_options(options: Mapping[str, Any], kind: type) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the keyword arguments that are fields of a dataclass, and the others."""
    names = {field.name for field in fields(kind)}
    own = {name: value for name, value in options.items() if name in names}
    return own, {name: value for name, value in options.items() if name not in names}
