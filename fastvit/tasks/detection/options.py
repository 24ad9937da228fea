"""What a person may choose of a detector and of training one. Needs no torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, get_args

from fastvit.errors import UserError, unknown_name
from fastvit.tasks.images import check_images

DetectorKind = Literal["mask_rcnn", "faster_rcnn", "retinanet"]


@dataclass(frozen=True)
class DetectorConfig:
    """What stands on the backbone.

    Attributes:
        kind: "mask_rcnn" (arXiv 1703.06870), "faster_rcnn" (the same without masks), or "retinanet" (arXiv 1708.02002).
        width: channels of the feature pyramid, and of the heads on it in proportion.
        anchor: side in pixels of the anchors on the finest map of the pyramid; it doubles from map to map. The finest
            map has stride 4, of RetinaNet 8.
        proposals: regions of an image that the second stage of an R-CNN looks at, twice as many in training; its first
            stage ranks them.
        samples: of these, those that the second stage learns from in each training image.
        score: detections below it are dropped.
        overlap: of two detections of a class with a larger intersection over union the weaker one is dropped.
        detections: kept for an image, the best.
    """

    kind: DetectorKind = "mask_rcnn"
    width: int = 256
    anchor: int = 32
    proposals: int = 1000
    samples: int = 512
    score: float = 0.05
    overlap: float = 0.5
    detections: int = 100

    def __post_init__(self) -> None:
        for name in ("width", "anchor", "proposals", "samples", "detections"):
            if (value := getattr(self, name)) < 1:
                raise UserError(f"{name} of a detector must be at least 1, got {value}")
        for name in ("score", "overlap"):
            if not 0 <= (share := getattr(self, name)) <= 1:
                raise UserError(f"{name} of a detector must be in 0 to 1, got {share}")
        if self.kind not in get_args(DetectorKind):
            raise unknown_name("detector", self.kind, get_args(DetectorKind))

    @property
    def masks(self) -> bool:
        """Whether it gives masks."""
        return self.kind == "mask_rcnn"


@dataclass(frozen=True)
class DetectionOptions:
    """Of training a detector.

    Attributes:
        network: what stands on the backbone.
        size: shorter and longer side in pixels within which images are shown, in evaluation and before `ratio`.
        ratio: training images are scaled by a factor drawn between these two, on top.
        crop: side in pixels of a square cut out of training images at random; None for none.
        hflip: probability of a horizontal flip.
        photometric: probability of changing brightness, contrast, saturation and hue (SSD's, arXiv 1512.02325).
        group: make batches of images that are all wide or all tall, so that less of them is padding.
    """

    network: DetectorConfig = field(default_factory=DetectorConfig)
    size: tuple[int, int] = (800, 1333)
    ratio: tuple[float, float] = (1.0, 1.0)
    crop: int | None = None
    hflip: float = 0.5
    photometric: float = 0.0
    group: bool = True

    def __post_init__(self) -> None:
        shares = {"hflip": self.hflip, "photometric": self.photometric}
        check_images("detection", self.size, self.ratio, self.crop, shares)
