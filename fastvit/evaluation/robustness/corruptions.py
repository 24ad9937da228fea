"""Fifteen corruptions of ImageNet-C at five severities (Hendrycks & Dietterich, arXiv 1903.12261).

They follow the definitions of the benchmark and use its published constants, which are for images of 224 pixels. At
other sizes the radius of defocus, glass and motion blur and of the elastic transform is scaled with the shorter side;
noise, snowflakes and JPEG are not scaled. Differences from the original: frost (see `_frost`), the random numbers
(seeded by image, corruption and severity), and pixels are rounded, not truncated.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

import numpy as np
from PIL import Image
from scipy import ndimage

from fastvit.errors import UserError
from fastvit.evaluation.robustness.filters import (
    blurred,
    disk,
    displaced,
    gaussian,
    motion_blurred,
    plasma,
    random_affine,
    zoomed,
)

Group = Literal["noise", "blur", "weather", "digital"]
SEVERITIES = (1, 2, 3, 4, 5)
_SIDE = 224  # image size in pixels that the constants are for


@dataclass(frozen=True)
class Corruption:
    """Corruption of an image at five severities.

    Attributes:
        name: name of ImageNet-C's folder.
        group: group in the benchmark.
        constants: arguments of `function` at each severity.
        function: function (float32 image (H, W, 3) in 0..1, random generator, *constants) -> float image of the same
            shape, which may exceed 0..1.
    """

    name: str
    group: Group
    constants: tuple[tuple[float, ...], ...]
    function: Callable[..., np.ndarray]

    def __call__(self, image: np.ndarray, severity: int, rng: np.random.Generator) -> np.ndarray:
        """Corrupt an image.

        Args:
            image: uint8 image (H, W, 3); it is not changed.
            severity: 1 to 5.
            rng: random generator; the same state gives the same result.

        Returns:
            Corrupted uint8 image (H, W, 3).

        Raises:
            UserError: the severity is not 1 to 5.
        """
        if severity not in SEVERITIES:
            raise UserError(f"severity must be 1 to 5, got {severity}")
        result = self.function(image.astype(np.float32) / 255, rng, *self.constants[severity - 1])
        return np.rint(np.clip(result, 0, 1) * 255).astype(np.uint8)


def generator(seed: int, corruption: str, severity: int, index: int) -> np.random.Generator:
    """Return the random generator of an image, which does not depend on order, batches or workers.

    Args:
        seed: random seed.
        corruption: name of the corruption.
        severity: severity, 1 to 5.
        index: index of the image in the dataset.
    """
    return np.random.default_rng((seed, list(CORRUPTIONS).index(corruption), severity, index))


def _scale(image: np.ndarray) -> float:
    return min(image.shape[:2]) / _SIDE


def _gaussian_noise(image: np.ndarray, rng: np.random.Generator, sigma: float) -> np.ndarray:
    return image + sigma * rng.standard_normal(image.shape, np.float32)


def _shot_noise(image: np.ndarray, rng: np.random.Generator, photons: float) -> np.ndarray:
    return rng.poisson(image * photons) / photons


def _impulse_noise(image: np.ndarray, rng: np.random.Generator, share: float) -> np.ndarray:
    """Set a share of the values, independently for each channel, to 0 or 1."""
    extremes = rng.integers(0, 2, image.shape)
    return np.where(rng.random(image.shape, np.float32) < share, extremes, image)


def _defocus_blur(image: np.ndarray, rng: np.random.Generator, radius: float) -> np.ndarray:
    return blurred(image, disk(radius * _scale(image)))


def _glass_blur(image: np.ndarray, rng: np.random.Generator, sigma: float, reach: int, passes: int) -> np.ndarray:
    """Blur, replace pixels by near ones, blur.

    The original intends to swap neighboring pixels, but assigns NumPy views, which copies one pixel over the other. The
    published images were created this way, so the code here does the same. At other sizes the reach is rounded to whole
    pixels, and the number of passes (the last may be partial) keeps reach**2 * passes in scale.
    """
    scale = _scale(image)
    height, width = image.shape[:2]
    pixels = max(1, round(reach * scale))
    passes_left = passes * (reach * scale / pixels) ** 2
    rows, columns = (np.arange(side - pixels, pixels, -1) for side in (height, width))
    places = (rows[:, None] * width + columns).ravel()
    origin = list(range(height * width))
    while passes_left > 0 and len(places):
        down, right = rng.integers(-pixels, pixels, (2, len(places)))
        moved = rng.random(len(places)) < passes_left
        for place, neighbor in zip(places.tolist(), (places + moved * (down * width + right)).tolist(), strict=True):
            origin[place] = origin[neighbor]
        passes_left -= 1
    shuffled = gaussian(image, sigma * scale).reshape(-1, 3)[origin].reshape(image.shape)
    return gaussian(shuffled, sigma * scale)


def _motion_blur(image: np.ndarray, rng: np.random.Generator, radius: float, sigma: float) -> np.ndarray:
    scale = _scale(image)
    return motion_blurred(image, radius * scale, sigma * scale, np.deg2rad(rng.uniform(-45, 45)))


def _zoom_blur(image: np.ndarray, rng: np.random.Generator, stop: float, step: float) -> np.ndarray:
    """Average the image and enlargements of it."""
    factors = np.arange(1, stop, step)
    return (image + sum(zoomed(image, factor) for factor in factors)) / (len(factors) + 1)


def _snow(
    image: np.ndarray,
    rng: np.random.Generator,
    mean: float,
    sigma: float,
    size: float,
    threshold: float,
    radius: float,
    smear: float,
    share: float,
) -> np.ndarray:
    """Add snowflakes (noise, enlarged, thresholded and blurred downwards) to the whitened image."""
    flakes = zoomed(rng.normal(mean, sigma, image.shape[:2]).astype(np.float32), size)
    flakes = np.clip(np.where(flakes < threshold, 0, flakes), 0, 1)
    flakes = motion_blurred(flakes, radius, smear, np.deg2rad(rng.uniform(-135, -45)))[..., None]
    gray = image @ np.array([[0.299], [0.587], [0.114]], np.float32)
    whitened = share * image + (1 - share) * np.maximum(image, 1.5 * gray + 0.5)
    return whitened + flakes + flakes[::-1, ::-1]


# Mean color and standard deviation (0..255) of a 224-pixel crop of the photographs that the original overlays.
_FROSTS = (
    ((78, 148, 165), 17),
    ((197, 202, 211), 20),
    ((197, 202, 211), 20),
    ((144, 159, 172), 26),
    ((101, 112, 124), 36),
)


def _frost(image: np.ndarray, rng: np.random.Generator, share: float, frost: float) -> np.ndarray:
    """Overlay the image with a texture of ice needles, with the brightness and contrast of the original's photographs.

    The original overlays crops of photographs, which cannot be distributed. So this is another corruption of similar
    strength: results that are comparable with published ones need the published folders of ImageNet-C.
    """
    scale = _scale(image)
    height, width = image.shape[:2]
    coverage = plasma(_power_of_two(max(height, width)), 1.7, rng)[:height, :width]
    needles = np.zeros((height, width), np.float32)
    for angle in rng.uniform(0, 2 * np.pi, 8):
        seeds = (rng.random((height, width), np.float32) < 0.01 * coverage).astype(np.float32)
        needles += motion_blurred(seeds, 14 * scale, 9 * scale, angle)
    texture = needles + 0.3 * needles.std() * coverage / max(coverage.std(), 1e-6)
    color, contrast = _FROSTS[rng.integers(len(_FROSTS))]
    ice = np.array(color) + contrast * ((texture - texture.mean()) / max(texture.std(), 1e-6))[..., None]
    return share * image + frost * np.clip(ice / 255, 0, 1)


def _fog(image: np.ndarray, rng: np.random.Generator, density: float, decay: float) -> np.ndarray:
    height, width = image.shape[:2]
    cloud = plasma(_power_of_two(max(height, width)), decay, rng)[:height, :width, None]
    brightest = image.max()
    return (image + density * cloud) * brightest / (brightest + density)


def _power_of_two(size: int) -> int:
    """Return the smallest power of two that is at least `size`."""
    return 1 << (size - 1).bit_length()


def _brightness(image: np.ndarray, rng: np.random.Generator, more: float) -> np.ndarray:
    """Increase the value channel of hue, saturation, value (HSV)."""
    value = image.max(-1, keepdims=True)
    brighter = np.minimum(value + more, 1)
    return np.where(value > 0, image * brighter / np.where(value > 0, value, 1), brighter)


def _contrast(image: np.ndarray, rng: np.random.Generator, factor: float) -> np.ndarray:
    mean = image.mean((0, 1), keepdims=True)
    return (image - mean) * factor + mean


def _elastic_transform(
    image: np.ndarray, rng: np.random.Generator, amplitude: float, sigma: float, shift: float
) -> np.ndarray:
    """Apply a random affine map, then a random smooth displacement of each pixel; constants are shares of the side."""
    side = 244 * _scale(image)  # 244 instead of 224: an error of the original, also in the published images
    size = image.shape[:2]
    moved = displaced(image, *random_affine(size, shift * side, rng), mode="mirror")
    rows, columns = np.mgrid[: size[0], : size[1]].astype(np.float32)
    down, right = (
        amplitude * side * ndimage.gaussian_filter(noise, sigma * side, mode="reflect", truncate=3)
        for noise in rng.uniform(-1, 1, (2, *size)).astype(np.float32)
    )
    return displaced(moved, rows + down, columns + right, mode="reflect")


def _pixelate(image: np.ndarray, rng: np.random.Generator, share: float) -> np.ndarray:
    height, width = image.shape[:2]
    small = (max(1, int(width * share)), max(1, int(height * share)))
    return _array(_picture(image).resize(small, Image.Resampling.BOX).resize((width, height), Image.Resampling.BOX))


def _jpeg_compression(image: np.ndarray, rng: np.random.Generator, quality: int) -> np.ndarray:
    file = io.BytesIO()
    _picture(image).save(file, "JPEG", quality=quality)
    return _array(Image.open(file))


def _picture(image: np.ndarray) -> Image.Image:
    return Image.fromarray(np.rint(image * 255).astype(np.uint8))


def _array(picture: Image.Image) -> np.ndarray:
    return np.asarray(picture, np.float32) / 255


_ALL = (
    Corruption("gaussian_noise", "noise", ((0.08,), (0.12,), (0.18,), (0.26,), (0.38,)), _gaussian_noise),
    Corruption("shot_noise", "noise", ((60,), (25,), (12,), (5,), (3,)), _shot_noise),
    Corruption("impulse_noise", "noise", ((0.03,), (0.06,), (0.09,), (0.17,), (0.27,)), _impulse_noise),
    Corruption("defocus_blur", "blur", ((3,), (4,), (6,), (8,), (10,)), _defocus_blur),
    Corruption("glass_blur", "blur", ((0.7, 1, 2), (0.9, 2, 1), (1, 2, 3), (1.1, 3, 2), (1.5, 4, 2)), _glass_blur),
    Corruption("motion_blur", "blur", ((10, 3), (15, 5), (15, 8), (15, 12), (20, 15)), _motion_blur),
    Corruption("zoom_blur", "blur", ((1.11, 0.01), (1.16, 0.01), (1.21, 0.02), (1.26, 0.02), (1.31, 0.03)), _zoom_blur),
    Corruption(
        "snow",
        "weather",
        (
            (0.1, 0.3, 3, 0.5, 10, 4, 0.8),
            (0.2, 0.3, 2, 0.5, 12, 4, 0.7),
            (0.55, 0.3, 4, 0.9, 12, 8, 0.7),
            (0.55, 0.3, 4.5, 0.85, 12, 8, 0.65),
            (0.55, 0.3, 2.5, 0.85, 12, 12, 0.55),
        ),
        _snow,
    ),
    Corruption("frost", "weather", ((1, 0.4), (0.8, 0.6), (0.7, 0.7), (0.65, 0.7), (0.6, 0.75)), _frost),
    Corruption("fog", "weather", ((1.5, 2), (2, 2), (2.5, 1.7), (2.5, 1.5), (3, 1.4)), _fog),
    Corruption("brightness", "weather", ((0.1,), (0.2,), (0.3,), (0.4,), (0.5,)), _brightness),
    Corruption("contrast", "digital", ((0.4,), (0.3,), (0.2,), (0.1,), (0.05,)), _contrast),
    Corruption(
        "elastic_transform",
        "digital",
        ((2, 0.7, 0.1), (2, 0.08, 0.2), (0.05, 0.01, 0.02), (0.07, 0.01, 0.02), (0.12, 0.01, 0.02)),
        _elastic_transform,
    ),
    Corruption("pixelate", "digital", ((0.6,), (0.5,), (0.4,), (0.3,), (0.25,)), _pixelate),
    Corruption("jpeg_compression", "digital", ((25,), (18,), (15,), (10,), (7,)), _jpeg_compression),
)
CORRUPTIONS = MappingProxyType({corruption.name: corruption for corruption in _ALL})
