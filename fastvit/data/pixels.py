"""Images as arrays for evaluation, with Pillow and NumPy alone: a process that runs an artifact loads no torch.

Pixel for pixel what timm's evaluation transform gives (resize, then center crop), which is tested.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from fastvit.model.preprocessing import Preprocessing

_FILTERS = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
}


def eval_array(image: Image.Image, preprocessing: Preprocessing) -> np.ndarray:
    """An RGB or L image as (C, H, W) uint8, resized and cropped or filled up as `preprocessing` says."""
    height, width = preprocessing.size
    if preprocessing.resize == "crop":
        target = math.floor(height / preprocessing.crop_pct), math.floor(width / preprocessing.crop_pct)
        resized = image.resize(_covering(image.size, target), _FILTERS[preprocessing.interpolation])
        return _channels_first(_center(resized, width, height))
    fitted_height, fitted_width = fitted_size((image.height, image.width), preprocessing)
    pixels = _channels_first(image.resize((fitted_width, fitted_height), _FILTERS[preprocessing.interpolation]))
    if preprocessing.resize == "resize_shorter":
        return pixels
    mean = np.rint(255 * np.asarray(preprocessing.mean)).astype(np.uint8)  # all but 0 when it is normalized
    canvas = np.broadcast_to(mean.reshape(-1, 1, 1), (len(pixels), height, width)).copy()
    canvas[:, :fitted_height, :fitted_width] = pixels
    return canvas


def fitted_size(size: tuple[int, int], preprocessing: Preprocessing) -> tuple[int, int]:
    """Height and width to which an image of `size` (height, width) is scaled, of the modes that keep all of it."""
    room, sides = preprocessing.size, size
    if preprocessing.resize == "resize_shorter":  # tall images have as much room as wide ones
        room, sides = (min(room), max(room)), (min(sides), max(sides))
    scale = min(room[0] / sides[0], room[1] / sides[1])
    return max(round(size[0] * scale), 1), max(round(size[1] * scale), 1)


def _channels_first(image: Image.Image) -> np.ndarray:
    array = np.asarray(image)
    return np.array(array[None] if array.ndim == 2 else array.transpose(2, 0, 1), order="C")  # Pillow's is read-only


def normalized(pixels: np.ndarray, preprocessing: Preprocessing) -> np.ndarray:
    """(..., C, H, W) uint8 -> float32 with the mean taken off and divided by the std of each channel."""
    mean, std = (np.array(v, np.float32).reshape(-1, 1, 1) for v in (preprocessing.mean, preprocessing.std))
    scaled: np.ndarray[Any, np.dtype[np.float32]] = pixels.astype(np.float32)
    scaled /= np.float32(255)
    scaled -= mean
    scaled /= std
    return scaled


def denormalized(images: np.ndarray, preprocessing: Preprocessing) -> np.ndarray:
    """The inverse of normalization: (..., C, H, W) float32 -> float32 in [0, 1]."""
    mean, std = (np.array(v, np.float32).reshape(-1, 1, 1) for v in (preprocessing.mean, preprocessing.std))
    return np.asarray(images * std + mean)


def _covering(size: tuple[int, int], target: tuple[int, int]) -> tuple[int, int]:
    """Width and height of an image of `size` (width, height) made as small as covers `target` (height, width)."""
    (width, height), (target_height, target_width) = size, target
    if target_height == target_width:  # the longer side is cut off to a whole number, as torchvision does it
        short = target_height
        return (short, int(short * height / width)) if width <= height else (int(short * width / height), short)
    ratio = min(height / target_height, width / target_width)
    return round(width / ratio), round(height / ratio)


def _center(image: Image.Image, width: int, height: int) -> Image.Image:
    missing = max(width - image.width, 0), max(height - image.height, 0)
    if any(missing):  # black around an image that rounding has made too small
        across, down = missing
        image = ImageOps.expand(image, (across // 2, down // 2, (across + 1) // 2, (down + 1) // 2), 0)
    left, top = round((image.width - width) / 2), round((image.height - height) / 2)
    return image.crop((left, top, left + width, top + height))
