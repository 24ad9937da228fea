"""Creation of detectors by name."""

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
        name: variant ("fastvit_sa12" or "sa12"), or a variant with the tag of released classifier weights
            ("fastvit_sa12.apple_dist_in1k"), which are then loaded into the backbone.
        pretrained: True for the variant's default classifier weights in the backbone, or their tag.
        num_classes: number of object classes, without background; None for the number of `classes`, or COCO's 80.
        in_chans: number of image channels.
        drop_path: stochastic depth rate of the last block.
        classes: names of the classes.
        preprocessing: fields of `fastvit.Preprocessing` that differ from the detector's default.
        kind: "mask_rcnn", "faster_rcnn" or "retinanet".
        options: other fields of `fastvit.tasks.detection.options.DetectorConfig`, and of the backbone's configuration.

    Raises:
        UserError: a variant, tag or option does not exist, or the weights cannot be loaded.
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
