"""Random augmentation of training images together with their objects."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torchvision.ops import masks_to_boxes
from torchvision.transforms import InterpolationMode, v2
from torchvision.transforms.v2 import functional as vision
from torchvision.tv_tensors import BoundingBoxes, BoundingBoxFormat, Mask, wrap

from fastvit.data.pixels import fitted_size
from fastvit.model.preprocessing import Preprocessing
from fastvit.tasks.detection.options import DetectionOptions

Target = dict[str, Tensor]
_Parts = dict[str, Any]


class TrainTransform:
    """Photometric distortion, scale jitter, crop and horizontal flip of an image with its objects.

    The image is resized as for evaluation, by `fastvit.data.pixels.fitted_size` and with the same interpolation, times
    a random factor. Objects outside the crop, or less than a pixel high or wide, are dropped. With masks, the box of an
    object that is partly outside the crop is the bounding box of the rest of its mask. Random numbers come from torch's
    generator.

    Args:
        options: options of the augmentation; the network in them is not used.
        preprocessing: preprocessing of the model, for its interpolation.
    """

    def __init__(self, options: DetectionOptions, preprocessing: Preprocessing) -> None:
        self._options = options
        self._fit = replace(preprocessing, size=options.size, resize="resize_shorter")
        self._filter = InterpolationMode(preprocessing.interpolation)
        self._distort = _Distort(p=options.photometric)
        self._sanitize = v2.SanitizeBoundingBoxes(min_size=1)

    def __call__(self, image: Image.Image, target: Target) -> tuple[Tensor, Target]:
        """Return the augmented image as (C, h, w) uint8, and its remaining objects in the form of `target`.

        Args:
            image: RGB or grayscale image.
            target: "boxes" (N, 4) float32, left, top, right and bottom in pixels of the image, "labels" (N,), and
                optionally "masks" (N, H, W) uint8.
        """
        canvas = image.height, image.width
        size = self._drawn_size(canvas)
        parts: _Parts = {
            "image": image,
            "boxes": BoundingBoxes(target["boxes"], format=BoundingBoxFormat.XYXY, canvas_size=canvas),
        }
        if "masks" in target:
            parts["masks"] = Mask(target["masks"])
        if torch.rand(()) < self._options.hflip:  # first, because most recipes enlarge the image afterwards
            parts = {name: vision.horizontal_flip(part) for name, part in parts.items()}
        # Pillow distorts colors faster, torch resizes faster, and both are faster on fewer pixels.
        late = self._options.photometric > 0 and canvas[0] * canvas[1] > size[0] * size[1]
        if not late:
            parts["image"] = vision.pil_to_tensor(self._distort(parts["image"]))
        # For masks, plain "nearest" is off by half a pixel.
        filters = {"masks": InterpolationMode.NEAREST_EXACT}
        parts = {name: vision.resize(part, size, filters.get(name, self._filter)) for name, part in parts.items()}
        if self._options.crop:
            parts = _cut_out(parts, self._options.crop)
        pixels = parts.pop("image")
        if late:
            pixels = vision.pil_to_tensor(self._distort(pixels))
        _, kept = self._sanitize(None, {**parts, "labels": target["labels"]})
        return pixels, {name: part.as_subclass(Tensor) for name, part in kept.items()}

    def _drawn_size(self, size: tuple[int, int]) -> list[int]:
        """Return the random height and width to resize an image to."""
        factor = torch.empty((), dtype=torch.float64).uniform_(*self._options.scale_range).item()
        return [max(round(side * factor), 1) for side in fitted_size(size, self._fit)]


class _Distort(v2.RandomPhotometricDistort):
    """SSD's photometric distortion without the swap of channels, which produces unrealistic colors."""

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        return {**super().make_params(flat_inputs), "channel_permutation": None}


def _cut_out(parts: _Parts, side: int) -> _Parts:
    """Crop a random square, or less if the image is smaller."""
    height, width = vision.get_size(parts["image"])
    top, left = (int(torch.randint(max(extent - side, 0) + 1, ())) for extent in (height, width))
    window = top, left, min(side, height), min(side, width)
    whole = parts["boxes"].as_subclass(Tensor) - torch.tensor([left, top, left, top])
    parts = {name: vision.crop(part, *window) for name, part in parts.items()}
    if "masks" in parts:
        boxes, masks = (parts[name].as_subclass(Tensor) for name in ("boxes", "masks"))
        cut = (boxes != whole).any(1)
        seen = masks.flatten(1).any(1).bool()  # any() of uint8 is uint8
        boxes[cut & seen] = masks_to_boxes(masks[cut & seen]) + torch.tensor([0.0, 0.0, 1.0, 1.0])
        boxes[cut & ~seen] = 0
        parts["boxes"] = wrap(boxes, like=parts["boxes"])
    return parts
