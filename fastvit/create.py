"""Making models by name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from fastvit.data.imagenet import imagenet_classes
from fastvit.errors import UserError
from fastvit.model.backbone import Backbone
from fastvit.model.classifier import FastViT
from fastvit.model.preprocessing import Preprocessing
from fastvit.model.task_model import TaskModel
from fastvit.model.variants import find_variant
from fastvit.weights.load import copy_into
from fastvit.weights.source import StateFile, read
from fastvit.weights.zoo import find_weights

if TYPE_CHECKING:
    from fastvit.tasks.detection.model import Detector
    from fastvit.tasks.hand_mesh.hand_file import HandArrays
    from fastvit.tasks.hand_mesh.model import HandRegressor
    from fastvit.tasks.segmentation.model import Segmenter

Dense = TypeVar("Dense", bound=TaskModel)


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


def create_detector(
    name: str,
    pretrained: bool | str = False,
    num_classes: int | None = None,
    in_chans: int = 3,
    drop_path: float = 0.0,
    *,
    classes: Sequence[str] | None = None,
    kind: Literal["mask_rcnn", "faster_rcnn", "retinanet"] = "mask_rcnn",
    **options: Any,
) -> Detector:
    """Mask R-CNN, Faster R-CNN or RetinaNet on a variant, in train form.

    Args:
        name: as in `create_model`; weights of a classifier fill the backbone.
        pretrained: as in `create_model`.
        num_classes: of objects, without a background; by default as many as there are names, or COCO's 80.
        in_chans: channels of the images.
        drop_path: stochastic depth of the last block.
        classes: their names.
        kind: of detector.
        options: other fields of `fastvit.tasks.detection.options.DetectorConfig`, and of the backbone's configuration.

    Raises:
        UserError: no such variant, tag or option; or the weights cannot be had.
    """
    from fastvit.tasks.detection.model import Detector
    from fastvit.tasks.detection.options import DetectorConfig

    own, rest = _split(options, DetectorConfig)
    count = _count(num_classes, classes, 80)
    backbone = {"in_chans": in_chans, "drop_path": drop_path, **rest}
    return _on_backbone(Detector, DetectorConfig(kind=kind, **own), name, pretrained, count, classes, backbone)


def create_segmenter(
    name: str,
    pretrained: bool | str = False,
    num_classes: int | None = None,
    in_chans: int = 3,
    drop_path: float = 0.0,
    *,
    classes: Sequence[str] | None = None,
    head: Literal["fpn", "upernet"] = "fpn",
    **options: Any,
) -> Segmenter:
    """Semantic FPN or UPerNet on a variant, in train form; see `create_detector`. By default ADE20K's 150 classes."""
    from fastvit.tasks.segmentation.model import Segmenter
    from fastvit.tasks.segmentation.options import SegmenterConfig

    own, rest = _split(options, SegmenterConfig)
    count = _count(num_classes, classes, 150)
    backbone = {"in_chans": in_chans, "drop_path": drop_path, **rest}
    return _on_backbone(Segmenter, SegmenterConfig(head=head, **own), name, pretrained, count, classes, backbone)


def create_hand_regressor(
    name: str,
    pretrained: bool | str = False,
    in_chans: int = 3,
    drop_path: float = 0.0,
    *,
    hand: str | HandArrays = "procedural",
    head: Literal["mlp", "tokens"] = "mlp",
    **options: Any,
) -> HandRegressor:
    """A hand mesh regressor on a variant, in train form; see `create_detector`.

    Args:
        name: as in `create_model`; weights of a classifier fill the backbone.
        pretrained: as in `create_model`.
        in_chans: channels of the images.
        drop_path: stochastic depth of the last block.
        hand: what it moves: "procedural" (the package's own), "mano", a file (see
            `fastvit.tasks.hand_mesh.hand_file.read_hand`), or one that was read.
        head: "mlp", the paper's, or "tokens".
        options: other fields of `fastvit.tasks.hand_mesh.options.RegressorConfig`, and of the backbone's configuration.

    Raises:
        UserError: no such variant, tag, option or hand; or the weights cannot be had.
    """
    from fastvit.tasks.hand_mesh.hand_file import read_hand
    from fastvit.tasks.hand_mesh.model import HandRegressor, regressor_config
    from fastvit.tasks.hand_mesh.options import RegressorConfig
    from fastvit.tasks.hand_mesh.skeleton import CLASSES

    own, rest = _split(options, RegressorConfig)
    arrays = read_hand(hand) if isinstance(hand, str) else hand
    if arrays.side != "right":
        raise UserError(f"regressors are built on right hands, {arrays.name} is a left one; sides='both' covers both")
    config = regressor_config(arrays, RegressorConfig(head=head, **own))
    backbone = {"in_chans": in_chans, "drop_path": drop_path, **rest}
    model = _on_backbone(HandRegressor, config, name, pretrained, len(CLASSES), CLASSES, backbone)
    if not model.hand.template.is_meta:
        model.take_hand(arrays)
    return model


def _count(num_classes: int | None, classes: Sequence[str] | None, default: int) -> int:
    """How many classes a dense task has.

    Raises:
        UserError: less than one.
    """
    count = num_classes if num_classes is not None else len(classes) if classes else default
    if count < 1:
        raise UserError(f"num_classes must be at least 1, got {count}")
    return count


def _split(options: dict[str, Any], kind: type) -> tuple[dict[str, Any], dict[str, Any]]:
    """Options that are fields of a dataclass, and the others."""
    names = {field.name for field in fields(kind)}
    return {k: v for k, v in options.items() if k in names}, {k: v for k, v in options.items() if k not in names}


def _on_backbone(
    kind: Callable[..., Dense],
    options: Any,
    name: str,
    pretrained: bool | str,
    num_classes: int,
    classes: Sequence[str] | None,
    backbone: dict[str, Any],
) -> Dense:
    classifier = create_model(name, pretrained, **backbone)
    config = classifier.config.replace(num_classes=num_classes)
    model = kind(config, classifier.variant, classes=classes, options=options)
    model.trunk.load_state_dict(classifier.backbone.state_dict())
    known = classifier.preprocessing
    model.preprocessing = replace(model.preprocessing, mean=known.mean, std=known.std, interpolation="bilinear")
    return model
