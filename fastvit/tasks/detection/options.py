"""Options of a detector and of its training. Needs no torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, get_args

from fastvit.errors import unknown_name
from fastvit.ranges import COUNT, PROBABILITY, check_ranges
from fastvit.tasks.images import check_images

DetectorKind = Literal["mask_rcnn", "faster_rcnn", "retinanet"]


@dataclass(frozen=True)
class DetectorConfig:
    """Layers of a detector on the backbone.

    Attributes:
        kind: type of detector: "mask_rcnn" (Mask R-CNN, arXiv 1703.06870; boxes and masks), "faster_rcnn" (Faster
            R-CNN, arXiv 1506.01497; boxes only), or "retinanet" (RetinaNet, arXiv 1708.02002; boxes only).
        fpn_channels: channels of the feature pyramid network (FPN); the widths of the heads are in proportion to it.
        anchor_size: anchor size: side in pixels of the anchors on the finest FPN level, which has stride 4 (RetinaNet:
            8); it doubles from level to level.
        post_nms_top_n: number of region proposals per image that are kept after NMS in the first stage, twice as many
            in training; not used by RetinaNet.
        roi_batch_size: number of region proposals per training image that the loss of the second stage is computed on;
            not used by RetinaNet.
        score_thresh: score threshold: only detections with a higher score are kept.
        nms_thresh: NMS threshold: where two boxes of one class overlap with a higher IoU, the one with the lower score
            is dropped.
        max_detections: largest number of detections per image; those with the highest scores are kept.
    """

    kind: DetectorKind = "mask_rcnn"
    fpn_channels: int = 256
    anchor_size: int = 32
    post_nms_top_n: int = 1000
    roi_batch_size: int = 512
    score_thresh: float = 0.05
    nms_thresh: float = 0.5
    max_detections: int = 100

    def __post_init__(self) -> None:
        counts = ("fpn_channels", "anchor_size", "post_nms_top_n", "roi_batch_size", "max_detections")
        ranges = {**dict.fromkeys(counts, COUNT), "score_thresh": PROBABILITY, "nms_thresh": PROBABILITY}
        check_ranges(self, ranges, "detection.network.")
        if self.kind not in get_args(DetectorKind):
            raise unknown_name("detector", self.kind, get_args(DetectorKind))

    @property
    def masks(self) -> bool:
        """True if the detector predicts masks."""
        return self.kind == "mask_rcnn"


@dataclass(frozen=True)
class DetectionOptions:
    """Options for training a detector.

    Attributes:
        network: options of the detector on the backbone.
        size: image size: images are resized to the largest size within this shorter and longer side in pixels that
            keeps their aspect ratio.
        scale_range: scale jitter: smallest and largest factor by which training images are scaled at random after
            resizing to `size`.
        crop: side of a random square crop of training images, in pixels; None for no crop.
        hflip: probability of a horizontal flip of a training image.
        photometric: probability of each photometric distortion of a training image: brightness, contrast, saturation
            and hue, as in SSD (arXiv 1512.02325).
        group_by_aspect_ratio: group training images into batches of wide or of tall images, which need less padding.
    """

    network: DetectorConfig = field(default_factory=DetectorConfig)
    size: tuple[int, int] = (800, 1333)
    scale_range: tuple[float, float] = (1.0, 1.0)
    crop: int | None = None
    hflip: float = 0.5
    photometric: float = 0.0
    group_by_aspect_ratio: bool = True

    def __post_init__(self) -> None:
        check_images(self, "detection.")
