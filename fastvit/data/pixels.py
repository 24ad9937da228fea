"""Evaluation preprocessing with Pillow and NumPy only, so that running an artifact does not load torch.

Gives the same pixels as timm's evaluation transform (resize, then center crop), which a test checks.
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
    """Return an RGB or L image as (C, H, W) uint8 pixels, resized and cropped or padded as `preprocessing` sets."""
    height, width = preprocessing.size
    if preprocessing.resize == "crop":
        target = math.floor(height / preprocessing.crop_pct), math.floor(width / preprocessing.crop_pct)
        resized = image.resize(_covering(image.size, target), _FILTERS[preprocessing.interpolation])
        return _channels_first(_center(resized, width, height))
    fitted_height, fitted_width = fitted_size((image.height, image.width), preprocessing)
    pixels = _channels_first(image.resize((fitted_width, fitted_height), _FILTERS[preprocessing.interpolation]))
    if preprocessing.resize == "resize_shorter":
        return pixels
    mean = np.rint(255 * np.asarray(preprocessing.mean)).astype(np.uint8)  # about 0 after normalization
    canvas = np.broadcast_to(mean.reshape(-1, 1, 1), (len(pixels), height, width)).copy()
    canvas[:, :fitted_height, :fitted_width] = pixels
    return canvas


def fitted_size(size: tuple[int, int], preprocessing: Preprocessing) -> tuple[int, int]:
    """Return the height and width that an image of `size` (height, width) is resized to in the modes without crop."""
    room, sides = preprocessing.size, size
    if preprocessing.resize == "resize_shorter":  # the limits are for the shorter and the longer side
        room, sides = (min(room), max(room)), (min(sides), max(sides))
    scale = min(room[0] / sides[0], room[1] / sides[1])
    return max(round(size[0] * scale), 1), max(round(size[1] * scale), 1)


def _channels_first(image: Image.Image) -> np.ndarray:
    array = np.asarray(image)
    return np.array(array[None] if array.ndim == 2 else array.transpose(2, 0, 1), order="C")  # Pillow's is read-only


def normalized(pixels: np.ndarray, preprocessing: Preprocessing) -> np.ndarray:
    """Normalize uint8 pixels (..., C, H, W) to float32 with the mean and standard deviation of each channel."""
    mean, std = (np.array(v, np.float32).reshape(-1, 1, 1) for v in (preprocessing.mean, preprocessing.std))
    scaled: np.ndarray[Any, np.dtype[np.float32]] = pixels.astype(np.float32)
    scaled /= np.float32(255)
    scaled -= mean
    scaled /= std
    return scaled


def denormalized(images: np.ndarray, preprocessing: Preprocessing) -> np.ndarray:
    """Invert the normalization: normalized images (..., C, H, W) to float32 in 0 to 1."""
    mean, std = (np.array(v, np.float32).reshape(-1, 1, 1) for v in (preprocessing.mean, preprocessing.std))
    return np.asarray(images * std + mean)


def _covering(size: tuple[int, int], target: tuple[int, int]) -> tuple[int, int]:
    """Return the smallest width and height for an image of `size` (width, height) to cover `target` (height, width)."""
    (width, height), (target_height, target_width) = size, target
    if target_height == target_width:  # the longer side is rounded down, as in torchvision
        short = target_height
        return (short, int(short * height / width)) if width <= height else (int(short * width / height), short)
    ratio = min(height / target_height, width / target_width)
    return round(width / ratio), round(height / ratio)


def _center(image: Image.Image, width: int, height: int) -> Image.Image:
    missing = max(width - image.width, 0), max(height - image.height, 0)
    if any(missing):  # pad with black where rounding made the image too small
        across, down = missing
        image = ImageOps.expand(image, (across // 2, down // 2, (across + 1) // 2, (down + 1) // 2), 0)
    left, top = round((image.width - width) / 2), round((image.height - height) / 2)
    return image.crop((left, top, left + width, top + height))
