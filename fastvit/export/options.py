"""Options of an export. Does not import torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from fastvit.errors import UserError
from fastvit.runtime.artifact import Input, Precision

# Output of every network: the feature maps of the backbone's stages, or of the neck between it and the head.
FEATURES = "features"


@dataclass(frozen=True)
class ExportOptions:
    """Options of one artifact.

    Attributes:
        precision: precision of the arithmetic; "palettized" is float16 with weights from a small lookup table.
        batch: batch size, or "dynamic" for any.
        size: height and width of the images in pixels; None for the size of the model, "dynamic" for any of at least
            32.
        input: kind of images: "normalized", "unit" (float32 in [0, 1]) or "pixels" (uint8); the artifact normalizes the
            latter two itself.
        output: one of `TaskSpec.outputs`, or "features": the feature maps of the backbone, of detectors those of the
            FPN; None for the default output of the task.
        keep_float: names of layers, or patterns such as "backbone.stem.*", that int8 keeps in float, in addition to
            those that the target keeps in float anyway.

    Raises:
        UserError: an option is out of range, or does not apply to the precision.
    """

    precision: Precision = "fp32"
    batch: int | Literal["dynamic"] = 1
    size: tuple[int, int] | Literal["dynamic"] | None = None
    input: Input = "normalized"
    output: str | None = None
    keep_float: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.keep_float and self.precision != "int8":
            raise UserError(f"keep_float is for int8, not for {self.precision}: leave it out")
        if self.batch != "dynamic" and self.batch < 1:
            raise UserError(f"batch must be at least 1 or dynamic, got {self.batch}")
        if isinstance(self.size, tuple) and min(self.size) < 32:
            raise UserError(f"size must be at least 32x32 pixels, got {self.size[0]}x{self.size[1]}")
