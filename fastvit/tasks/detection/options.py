"""Options of a detector and of its training. Needs no torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, get_args

from fastvit.errors import UserError, unknown_name
from fastvit.tasks.images import check_images

DetectorKind = Literal["mask_rcnn", "faster_rcnn", "retinanet"]


@dataclass(frozen=True)
class DetectorConfig:
    """Layers of a detector on the backbone.

    Attributes:
        kind: "mask_rcnn" (arXiv 1703.06870), "faster_rcnn" (the same without masks), or "retinanet" (arXiv 1708.02002).
        fpn_channels: channels of the feature pyramid network (FPN); the heads on it are wide in proportion.
        anchor_size: anchor size: side in pixels of the anchors on the finest feature map, which has stride 4, or 8 in
            RetinaNet; it doubles from map to map.
        post_nms_top_n: number of proposals per image that an R-CNN's first stage hands to the second after NMS; twice
            as many in training.
        roi_batch_size: number of proposals of each training image that the second stage learns from.
        score_thresh: score threshold: detections with a lower score are dropped.
        nms_thresh: NMS threshold: IoU above which the weaker of two boxes of a class is dropped.
        max_detections: largest number of detections per image; the best are kept.
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
        for name in ("fpn_channels", "anchor_size", "post_nms_top_n", "roi_batch_size", "max_detections"):
            if (value := getattr(self, name)) < 1:
                raise UserError(f"{name} of a detector must be at least 1, got {value}")
        for name in ("score_thresh", "nms_thresh"):
            if not 0 <= (share := getattr(self, name)) <= 1:
                raise UserError(f"{name} of a detector must be in 0 to 1, got {share}")
        if self.kind not in get_args(DetectorKind):
            raise unknown_name("detector", self.kind, get_args(DetectorKind))

    @property
    def masks(self) -> bool:
        """Whether the detector predicts masks."""
        return self.kind == "mask_rcnn"


@dataclass(frozen=True)
class DetectionOptions:
    """Options for training a detector.

    Attributes:
        network: detector on the backbone.
        size: shorter and longer side in pixels within which images are resized, in evaluation and before `scale_range`.
        scale_range: smallest and largest factor by which training images are then scaled at random.
        crop: side in pixels of a random square crop of training images; None for none.
        hflip: probability of a horizontal flip.
        photometric: probability of a photometric distortion: brightness, contrast, saturation and hue (SSD's, arXiv
            1512.02325).
        group_by_aspect_ratio: make batches of images that are all wide or all tall, so that less of them is padding.
    """

    network: DetectorConfig = field(default_factory=DetectorConfig)
    size: tuple[int, int] = (800, 1333)
    scale_range: tuple[float, float] = (1.0, 1.0)
    crop: int | None = None
    hflip: float = 0.5
    photometric: float = 0.0
    group_by_aspect_ratio: bool = True

    def __post_init__(self) -> None:
        shares = {"hflip": self.hflip, "photometric": self.photometric}
        check_images("detection", self.size, self.scale_range, self.crop, shares)
