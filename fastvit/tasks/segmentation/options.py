"""What a person may choose of a segmenter and of training one. Needs no torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, get_args

from fastvit.errors import UserError, unknown_name
from fastvit.tasks.images import check_images

SegmenterHead = Literal["fpn", "upernet"]


@dataclass(frozen=True)
class SegmenterConfig:
    """What stands on the backbone.

    Attributes:
        head: "fpn" (Semantic FPN, arXiv 1901.02446) or "upernet" (arXiv 1807.10221).
        width: channels of the feature pyramid.
        head_width: channels of the branches of Semantic FPN; UPerNet has `width` everywhere.
        dropout: of whole channels before the classifier.
        window: side in pixels of the windows, overlapping by a third, in which images are shown to it when it is used,
            the mean of whose answers counts; None shows it all of an image at once.
    """

    head: SegmenterHead = "fpn"
    width: int = 256
    head_width: int = 128
    dropout: float = 0.1
    window: int | None = None

    def __post_init__(self) -> None:
        for name, least in {"width": 1, "head_width": 1, "window": 32}.items():
            if (value := getattr(self, name)) is not None and value < least:
                raise UserError(f"{name} of a segmenter must be at least {least}, got {value}")
        if not 0 <= self.dropout < 1:
            raise UserError(f"dropout of a segmenter must be at least 0 and below 1, got {self.dropout}")
        if self.head not in get_args(SegmenterHead):
            raise unknown_name("head of a segmenter", self.head, get_args(SegmenterHead))


@dataclass(frozen=True)
class SegmentationOptions:
    """Of training a segmenter.

    Attributes:
        network: what stands on the backbone.
        size: shorter and longer side in pixels within which images are shown, in evaluation and before `ratio`.
        ratio: training images are scaled by a factor drawn between these two, on top.
        crop: side in pixels of the square that is cut out of training images; what is missing is filled up and ignored.
        largest_share: of the crop's pixels that one class may take; up to ten crops are tried.
        hflip: probability of a horizontal flip.
        photometric: probability of changing brightness, contrast, saturation and hue.
        class_weights: of each class in the loss; None for equal ones.
    """

    network: SegmenterConfig = field(default_factory=SegmenterConfig)
    size: tuple[int, int] = (512, 2048)
    ratio: tuple[float, float] = (0.5, 2.0)
    crop: int = 512
    largest_share: float = 0.75
    hflip: float = 0.5
    photometric: float = 0.5
    class_weights: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        shares = {"hflip": self.hflip, "photometric": self.photometric, "largest_share": self.largest_share}
        check_images("segmentation", self.size, self.ratio, self.crop, shares)
        if not self.largest_share:
            raise UserError("segmentation.largest_share must be above 0: a class takes some of every crop")
        if self.class_weights is not None and (min(self.class_weights) < 0 or not any(self.class_weights)):
            raise UserError(f"segmentation.class_weights must be at least 0, and one above, got {self.class_weights}")
