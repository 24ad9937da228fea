"""Creation of segmenters by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fastvit.create import class_count, create_on_backbone, split_options
from fastvit.tasks.segmentation.ade20k import ADE20K_CLASSES
from fastvit.tasks.segmentation.model import Segmenter
from fastvit.tasks.segmentation.options import SegmenterConfig, SegmenterHead


def create_segmenter(
    name: str,
    pretrained: bool | str = False,
    num_classes: int | None = None,
    in_chans: int = 3,
    drop_path: float = 0.0,
    *,
    classes: Sequence[str] | None = None,
    preprocessing: Mapping[str, Any] | None = None,
    head: SegmenterHead = "fpn",
    **options: Any,
) -> Segmenter:
    """Return Semantic FPN or UPerNet on a variant, in train form.

    Args:
        name: variant ("fastvit_sa12" or "sa12"), or a variant with the tag of released classifier weights
            ("fastvit_sa12.apple_dist_in1k"), which are then loaded into the backbone.
        pretrained: True for the variant's default classifier weights in the backbone, or their tag.
        num_classes: number of pixel classes; None for the number of `classes`, or ADE20K's 150.
        in_chans: number of image channels.
        drop_path: stochastic depth rate of the last block.
        classes: names of the classes.
        preprocessing: fields of `fastvit.Preprocessing` that differ from the segmenter's default.
        head: "fpn" or "upernet".
        options: other fields of `fastvit.tasks.segmentation.options.SegmenterConfig`, and of the backbone's
            configuration.

    Raises:
        UserError: a variant, tag or option does not exist, or the weights cannot be loaded.
    """
    own, rest = split_options(options, SegmenterConfig)
    return create_on_backbone(
        Segmenter,
        SegmenterConfig(head=head, **own),
        name,
        pretrained,
        class_count(num_classes, classes, len(ADE20K_CLASSES)),
        classes,
        preprocessing,
        in_chans=in_chans,
        drop_path=drop_path,
        **rest,
    )
