"""Making detectors by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fastvit.create import class_count, create_on_backbone, split_options
from fastvit.tasks.detection.model import Detector
from fastvit.tasks.detection.options import DetectorConfig, DetectorKind

COCO_CLASSES = 80


def create_detector(
    name: str,
    pretrained: bool | str = False,
    num_classes: int | None = None,
    in_chans: int = 3,
    drop_path: float = 0.0,
    *,
    classes: Sequence[str] | None = None,
    preprocessing: Mapping[str, Any] | None = None,
    kind: DetectorKind = "mask_rcnn",
    **options: Any,
) -> Detector:
    """Return Mask R-CNN, Faster R-CNN or RetinaNet on a variant, in train form.

    Args:
        name: as in `fastvit.create_model`; weights of a classifier fill the backbone.
        pretrained: as in `fastvit.create_model`.
        num_classes: of objects, without a background; by default as many as there are names, or COCO's 80.
        in_chans: channels of the images.
        drop_path: stochastic depth of the last block.
        classes: names of the classes.
        preprocessing: fields of `fastvit.Preprocessing` that differ from the detector's.
        kind: of detector.
        options: other fields of `fastvit.tasks.detection.options.DetectorConfig`, and of the backbone's configuration.

    Raises:
        UserError: no such variant, tag or option; or the weights cannot be had.
    """
    own, rest = split_options(options, DetectorConfig)
    return create_on_backbone(
        Detector,
        DetectorConfig(kind=kind, **own),
        name,
        pretrained,
        class_count(num_classes, classes, COCO_CLASSES),
        classes,
        preprocessing,
        in_chans=in_chans,
        drop_path=drop_path,
        **rest,
    )
