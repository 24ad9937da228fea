"""Making models by name."""

from __future__ import annotations

from typing import Any

from fastvit.data.imagenet import imagenet_classes
from fastvit.errors import UserError
from fastvit.model.backbone import Backbone
from fastvit.model.classifier import FastViT
from fastvit.model.preprocessing import Preprocessing
from fastvit.model.variants import find_variant
from fastvit.weights.load import copy_into
from fastvit.weights.source import StateFile, read
from fastvit.weights.zoo import find_weights


def create_model(
    name: str,
    pretrained: bool | str = False,
    num_classes: int | None = None,
    in_chans: int = 3,
    drop_path: float = 0.0,
    **overrides: Any,
) -> FastViT:
    """A FastViT classifier in train form.

    Args:
        name: a variant ("fastvit_sa12", or "sa12" for short), or a variant with the tag of released weights
            ("fastvit_sa12.apple_dist_in1k"), which are then loaded.
        pretrained: True for the default weights of the variant, or a tag.
        num_classes: of the head, 0 for none; by default 1000, or what the weights have. Another count than theirs
            keeps a new head.
        in_chans: channels of the images; pretrained stems are adapted to other counts than 3.
        drop_path: stochastic depth of the last block.
        overrides: other fields of `fastvit.model.config.FastViTConfig`.

    Raises:
        UserError: no such variant, tag or option; or the weights cannot be had.
    """
    variant = find_variant(name.partition(".")[0])
    tag = pretrained if isinstance(pretrained, str) else name.partition(".")[2]
    weights = find_weights(f"{variant.name}.{tag}") if pretrained or tag else None
    classes = num_classes if num_classes is not None else weights.num_classes if weights else 1000
    config = variant.config.replace(num_classes=classes, in_chans=in_chans, drop_path=drop_path, **overrides)
    preprocessing = weights.preprocessing if weights else Preprocessing(crop_pct=variant.crop_pct)
    model = FastViT(config, variant.name, preprocessing=preprocessing.for_channels(in_chans))
    if weights:
        copy_into(model, _with_channels(read(weights.repo), in_chans))
        if weights.num_classes == 1000 == classes:
            model.classes = imagenet_classes()
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
    """Stem weights for another number of image channels, by timm's rule (sum for grey, else repeat and rescale)."""
    if in_chans == 3:
        return file
    from timm.models import adapt_input_conv

    first = {
        k: adapt_input_conv(in_chans, v) for k, v in file.tensors.items() if k.startswith("stem.0.") and v.ndim == 4
    }
    return StateFile(file.tensors | first, file.info, file.name)
