"""Preprocessing of images for a model: size, crop, resize mode, mean and std. Needs no torch."""

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
    """Preprocessing of images: resize, scale to [0, 1], subtract mean, divide by std.

    Attributes:
        size: height and width of the model's input, in pixels.
        mean: mean of each channel, for pixels in [0, 1].
        std: standard deviation of each channel, for pixels in [0, 1].
        crop_pct: side of the center crop as a fraction of the resized image, in (0, 1]; used by the resize mode "crop".
        interpolation: interpolation of the resize.
        resize: resize mode. "crop" resizes the shorter side to size / crop_pct and crops the center. The other modes
            keep the complete image and its aspect ratio. "resize_shorter" scales it so that the shorter side is at most
            the smaller and the longer side at most the larger value of `size`; the input then has no fixed size.
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
        rest = f"crop {self.crop_pct}" if self.resize == "crop" else "letterbox"
        return f"{height}x{width}, {rest}, {self.interpolation}"

    def changed(self, changes: Mapping[str, Any] | None) -> Preprocessing:
        """Return a copy with other values of some fields.

        Raises:
            UserError: a field does not exist.
        """
        known = [field.name for field in fields(self)]
        if unknown := [name for name in changes or {} if name not in known]:
            raise unknown_name("field of Preprocessing", unknown[0], known)
        return replace(self, **(changes or {}))

    def for_channels(self, count: int) -> Preprocessing:
        """Return a copy for images with another number of channels; each gets the average of mean and std."""
        if count == len(self.mean):
            return self
        mean, std = (round(sum(values) / len(values), 6) for values in (self.mean, self.std))
        return replace(self, mean=(mean,) * count, std=(std,) * count)

    def with_size(self, size: int | None = None, crop_pct: float | None = None) -> Preprocessing:
        """Return a copy for square images of another size, or with another crop.

        Without `crop_pct`, the crop becomes 1 for a larger size and stays the same otherwise. With more pixels, objects
        are larger than in training, and a larger crop partly compensates for this (arXiv 1906.06423). Most of timm's
        models with a larger test size do the same.

        Args:
            size: height and width, in pixels, at least 32; by default unchanged.
            crop_pct: side of the center crop as a fraction of the resized image, in (0, 1].

        Raises:
            UserError: size or crop_pct is out of range.
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
        """Return a copy for another height and width, in pixels.

        In the mode "crop", the crop is that of `with_size` for the longer side. Other modes become "letterbox".
        """
        if self.resize != "crop":
            return replace(self, size=size, resize="letterbox")
        return self if size == self.size else replace(self.with_size(max(size)), size=size)

    @property
    def fixed_size(self) -> tuple[int, int]:
        """Height and width of an input of fixed size: `size`; for "resize_shorter", a 4:3 photo in multiples of 32."""
        if self.resize != "resize_shorter":
            return self.size
        short, long = min(self.size), max(self.size)
        height, width = (-(-side // 32) * 32 for side in (short, min(long, round(short * 4 / 3))))
        return height, width

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain dicts and lists, for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Preprocessing:
        """Return the preprocessing that `to_dict` has written.

        Raises:
            UserError: a field is unknown, or is not a sequence where one is needed.
        """
        try:
            sequences = {name: tuple(data[name]) for name in ("size", "mean", "std") if name in data}
            resize = {"resize": RESIZES.get(data["resize"], data["resize"])} if "resize" in data else {}
            return cls(**{**data, **sequences, **resize})
        except TypeError as error:
            raise UserError(f"the preprocessing description does not fit this version of fastvit: {error}") from error
