"""What can be asked of an export. Needs no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from fastvit.errors import UserError
from fastvit.runtime.artifact import Input, Precision

# The maps of the backbone's stages, or of what stands between it and the head: an output of every network.
FEATURES = "features"


@dataclass(frozen=True)
class ExportOptions:
    """Of one artifact.

    Attributes:
        precision: of the arithmetic; "palettized" is float16 with weights out of a small table.
        batch: images a call, or "dynamic" for any number.
        size: height and width in pixels; None for the model's own, "dynamic" for any from 32 on.
        input: what goes in: "normalized" images, images in [0, 1] ("unit"), or uint8 "pixels"; for the last two the
            normalization is inside.
        output: one of `TaskSpec.outputs`, or "features", the maps of the backbone's stages, of a detector those of its
            feature pyramid; None for the task's own.
        keep_float: names of layers, or patterns as "backbone.stem.*", that int8 leaves in float beside those that the
            target leaves so anyway.
    """

    precision: Precision = "fp32"
    batch: int | Literal["dynamic"] = 1
    size: tuple[int, int] | Literal["dynamic"] | None = None
    input: Input = "normalized"
    output: str | None = None
    keep_float: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.keep_float and self.precision != "int8":
            raise UserError(f"layers to keep in float are for int8, not for {self.precision}")
        if self.batch != "dynamic" and self.batch < 1:
            raise UserError(f"batch must be at least 1 or dynamic, got {self.batch}")
        if isinstance(self.size, tuple) and min(self.size) < 32:
            raise UserError(f"size must be at least 32 pixels a side, got {self.size[0]}x{self.size[1]}")
