"""Functions that create models by name."""

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
    """Create a FastViT classifier in train form.

    Args:
        name: name of a variant ("fastvit_sa12", or "sa12" for short), optionally with the tag of released weights
            ("fastvit_sa12.apple_dist_in1k"), which are then loaded.
        pretrained: True for the default weights of the variant, or the tag of other weights.
        num_classes: number of classes; 0 for no head. By default the number of `classes`, else that of the weights,
            else 1000. If it differs from that of the weights, the head is new.
        in_chans: channels of the images; pretrained stems are adapted if it is not 3.
        drop_path: stochastic depth rate of the last block.
        classes: names of the classes; by default ImageNet's for released weights with 1000 classes, else None.
        preprocessing: fields of `Preprocessing` that differ from those of the weights or the variant, such as
            {"size": (192, 192)}.
        overrides: other fields of `fastvit.model.config.FastViTConfig`.

    Raises:
        UserError: the variant, tag or option does not exist, or the weights cannot be downloaded or read.
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
    """Create the stem and stages of a variant, without a head.

    For (B, in_chans, H, W) images it returns a list of maps, (B, channels[i], H / strides[i], W / strides[i]), sides
    rounded up, with strides 4, 8, 16 and 32 (MCi3 and MCi4 have a fifth stage).

    Args:
        name: name of a variant ("fastvit_sa12", or "sa12" for short), optionally with the tag of released weights.
        pretrained: True for the default weights of the variant, or the tag of other weights.
        in_chans: channels of the images; pretrained stems are adapted if it is not 3.
        drop_path: stochastic depth rate of the last block.
        overrides: other fields of `fastvit.model.config.FastViTConfig`.

    Raises:
        UserError: the variant, tag or option does not exist, or the weights cannot be downloaded or read.
    """
    if "num_classes" in overrides:
        raise UserError("a backbone does not take num_classes; use create_model for a classifier")
    return create_model(name, pretrained, in_chans=in_chans, drop_path=drop_path, **overrides).backbone


def _with_channels(file: StateFile, in_chans: int) -> StateFile:
    """Adapt stem weights to another number of image channels, as timm does (sum for gray, else repeat and rescale)."""
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
    """Create the network of a task in train form, with the backbone of a classifier.

    Args:
        kind: class of the network.
        options: options of the network besides the backbone.
        name: name of a variant, optionally with the tag of released weights, which are loaded into the backbone.
        pretrained: True for the default weights of the variant, or the tag of other weights.
        num_classes: number of classes, at least 1.
        classes: names of the classes.
        preprocessing: fields of `Preprocessing` that differ from the defaults of the class, or from the mean and std
            of the weights.
        backbone: other arguments of `create_model`.

    Raises:
        UserError: the variant, tag or option does not exist, num_classes is below 1, or the weights cannot be
            downloaded or read.
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
    """Return the number of classes of a network.

    Args:
        num_classes: number of classes if given.
        classes: names of the classes, which are counted if `num_classes` is None.
        default: number of classes if both are None.
    """
    return num_classes if num_classes is not None else len(classes) if classes else default


def split_options(options: Mapping[str, Any], kind: type) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the options that are fields of a dataclass, and the others."""
    names = {field.name for field in fields(kind)}
    own = {name: value for name, value in options.items() if name in names}
    return own, {name: value for name, value in options.items() if name not in names}
