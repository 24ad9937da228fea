"""Colors, labels and image sizes for drawings of predictions."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

Color = tuple[int, int, int]


def palette(given: Sequence[Color | None]) -> np.ndarray:
    """Return (K, 3) uint8 colors: the given ones, and for each None the color that is farthest from all others."""
    levels = np.linspace(0, 255, 9).round()
    free = np.stack(np.meshgrid(levels, levels, levels, indexing="ij"), -1).reshape(-1, 3)
    weights = np.sqrt([2, 4, 3])  # roughly how visible a difference in red, green and blue is
    distance = np.full(len(free), np.inf)
    colors = np.zeros((len(given), 3))
    fixed = [index for index, color in enumerate(given) if color]
    for index in (*fixed, *(index for index, color in enumerate(given) if not color)):
        colors[index] = given[index] or free[distance.argmax()]
        distance = np.minimum(distance, np.linalg.norm((free - colors[index]) * weights, axis=1))
    return colors.astype(np.uint8)


def class_colors(count: int) -> list[Color]:
    """Return a distinct color for each of `count` classes, none of them near black or white."""
    colors = palette([(0, 0, 0), (255, 255, 255), *[None] * count])[2:].tolist()
    return [(red, green, blue) for red, green, blue in colors]


def ink(paper: Color) -> Color:
    """Return black or white, whichever is readable on a background color."""
    red, green, blue = paper
    return (0, 0, 0) if 0.299 * red + 0.587 * green + 0.114 * blue > 140 else (255, 255, 255)


def enlarged(image: Image.Image, least: int = 384) -> tuple[Image.Image, int]:
    """Return the image with its longer side enlarged to at least `least` pixels by a whole factor, and that factor."""
    factor = max(-(-least // max(image.size)), 1)
    return image.resize((image.width * factor, image.height * factor), Image.Resampling.BICUBIC), factor


def font() -> str:
    """Return the path of a font file that Matplotlib installs."""
    import matplotlib

    return str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf")
