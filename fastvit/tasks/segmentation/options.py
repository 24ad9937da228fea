"""Options of a segmenter and of its training. Needs no torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, get_args

from fastvit.errors import UserError, unknown_name
from fastvit.ranges import COUNT, RATE, SHARE, SIDE, check_ranges
from fastvit.tasks.images import check_images

SegmenterHead = Literal["fpn", "upernet"]


@dataclass(frozen=True)
class SegmenterConfig:
    """Layers of a segmenter on the backbone.

    Attributes:
        head: segmentation head: "fpn" (Semantic FPN, arXiv 1901.02446) or "upernet" (UPerNet, arXiv 1807.10221).
        fpn_channels: channels of the feature pyramid network (FPN), and of all other layers of UPerNet.
        head_channels: channels of the branches of Semantic FPN; not used by UPerNet.
        dropout: dropout rate of the feature channels before the classifier, in [0, 1).
        slide_window: sliding window: side in pixels of the square windows that validation and prediction run on, which
            overlap by a third; the logits are averaged. None runs on the complete image at once.
    """

    head: SegmenterHead = "fpn"
    fpn_channels: int = 256
    head_channels: int = 128
    dropout: float = 0.1
    slide_window: int | None = None

    def __post_init__(self) -> None:
        ranges = {"fpn_channels": COUNT, "head_channels": COUNT, "slide_window": SIDE, "dropout": RATE}
        check_ranges(self, ranges, "segmentation.network.")
        if self.head not in get_args(SegmenterHead):
            raise unknown_name("head of a segmenter", self.head, get_args(SegmenterHead))


@dataclass(frozen=True)
class SegmentationOptions:
    """Options for training a segmenter.

    Attributes:
        network: options of the segmenter on the backbone.
        size: image size: images are resized to the largest size within this shorter and longer side in pixels that
            keeps their aspect ratio.
        scale_range: scale jitter: smallest and largest factor by which training images are scaled at random after
            resizing to `size`.
        crop: side of the random square crop of training images, in pixels; smaller images are padded, and the loss
            ignores the padding.
        cat_max_ratio: largest share of the labeled pixels of a crop that one class may take, in (0, 1]; the last of ten
            random crops is used if none qualifies.
        hflip: probability of a horizontal flip of a training image.
        photometric: probability of each photometric distortion of a training image: brightness, contrast, saturation
            and hue, as in SSD (arXiv 1512.02325).
        class_weights: class weights: weight of each class in the cross entropy loss, in the order of the classes; None
            for equal weights.
    """

    network: SegmenterConfig = field(default_factory=SegmenterConfig)
    size: tuple[int, int] = (512, 2048)
    scale_range: tuple[float, float] = (0.5, 2.0)
    crop: int = 512
    cat_max_ratio: float = 0.75
    hflip: float = 0.5
    photometric: float = 0.5
    class_weights: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        check_images(self, "segmentation.")
        check_ranges(self, {"cat_max_ratio": SHARE}, "segmentation.")
        if self.class_weights is not None and (min(self.class_weights) < 0 or not any(self.class_weights)):
            raise UserError(f"segmentation.class_weights must be at least 0 and not all 0, got {self.class_weights}")
