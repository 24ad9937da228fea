"""What must happen to an image before the model sees it, as numbers. Needs no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal

from fastvit.errors import UserError, unknown_name
from fastvit.renames import RESIZES

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Preprocessing:
    """Resize, scale to [0, 1], subtract mean, divide by std.

    Attributes:
        size: height and width of the model's input in pixels.
        mean: a value a channel, for pixels in [0, 1].
        std: a value a channel, for pixels in [0, 1].
        crop_pct: side of the crop as a fraction of the resized image, in (0, 1]; of "crop" alone.
        interpolation: of the resize.
        resize: "crop" makes the shorter side size / crop_pct and cuts out the center. The others keep all of the image,
            and its aspect ratio: "resize_shorter" scales it so that its shorter side is at most the smaller and its
            longer side at most the larger number of `size`, so that the input of the model has no fixed size;
            "letterbox" scales it to fit into height and width, and pads it with the mean at the bottom and right.
    """

    size: tuple[int, int] = (256, 256)
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    crop_pct: float = 0.9
    interpolation: Literal["bilinear", "bicubic", "nearest"] = "bicubic"
    resize: Literal["crop", "resize_shorter", "letterbox"] = "crop"

    def __str__(self) -> str:
        height, width = self.size
        if self.resize == "resize_shorter":
            return f"within {min(self.size)}x{max(self.size)}, {self.interpolation}"
        rest = f"crop {self.crop_pct}" if self.resize == "crop" else "filled up"
        return f"{height}x{width}, {rest}, {self.interpolation}"

    def changed(self, changes: Mapping[str, Any] | None) -> Preprocessing:
        """The same with other values of some fields.

        Raises:
            UserError: there is no such field.
        """
        known = [field.name for field in fields(self)]
        if unknown := [name for name in changes or {} if name not in known]:
            raise unknown_name("field of Preprocessing", unknown[0], known)
        return replace(self, **(changes or {}))

    def for_channels(self, count: int) -> Preprocessing:
        """The same for images of another number of channels: each gets the mean of what there was."""
        if count == len(self.mean):
            return self
        mean, std = (round(sum(values) / len(values), 6) for values in (self.mean, self.std))
        return replace(self, mean=(mean,) * count, std=(std,) * count)

    def with_size(self, size: int | None = None, crop_pct: float | None = None) -> Preprocessing:
        """The same for square images of another size in pixels, or with another crop.

        Where no crop is given, it stays as it is up to the size that this is for, and is 1 for a larger one: more
        pixels make things larger than they were in training, and taking in the whole shorter side makes up for part of
        it (arXiv 1906.06423). Most of timm's models with a larger test size do the same.

        Raises:
            UserError: size or crop make no sense.
        """
        if size is not None and size < 32:
            raise UserError(f"size must be at least 32 pixels, got {size}")
        if crop_pct is not None and not 0 < crop_pct <= 1:
            raise UserError(f"crop_pct must be above 0 and at most 1, got {crop_pct}")
        larger = size is not None and size > max(self.size)
        return replace(
            self,
            size=(size, size) if size else self.size,
            crop_pct=crop_pct or (1.0 if larger else self.crop_pct),
        )

    def with_shape(self, size: tuple[int, int]) -> Preprocessing:
        """The same for another height and width, with `with_size`'s crop for the longer side, or filled up."""
        if self.resize != "crop":
            return replace(self, size=size, resize="letterbox")
        return self if size == self.size else replace(self.with_size(max(size)), size=size)

    @property
    def fixed_size(self) -> tuple[int, int]:
        """Height and width of an input of fixed size: `size`; for "resize_shorter", a 4:3 photo, in steps of 32."""
        if self.resize != "resize_shorter":
            return self.size
        short, long = min(self.size), max(self.size)
        height, width = (-(-side // 32) * 32 for side in (short, min(long, round(short * 4 / 3))))
        return height, width

    def to_dict(self) -> dict[str, Any]:
        """Plain dicts and lists, for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Preprocessing:
        """The inverse of `to_dict`.

        Raises:
            UserError: a field is unknown or not a sequence where one is due.
        """
        try:
            sequences = {name: tuple(data[name]) for name in ("size", "mean", "std") if name in data}
            resize = {"resize": RESIZES.get(data["resize"], data["resize"])} if "resize" in data else {}
            return cls(**{**data, **sequences, **resize})
        except TypeError as error:
            raise UserError(f"the preprocessing description does not fit this version of fastvit: {error}") from error
