"""Colors for classes, a font to name them in, and room for the names."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

Color = tuple[int, int, int]


def palette(given: Sequence[Color | None]) -> np.ndarray:
    """(K, 3) uint8: the colors given, and for each None one as far as can be from all others."""
    levels = np.linspace(0, 255, 9).round()
    free = np.stack(np.meshgrid(levels, levels, levels, indexing="ij"), -1).reshape(-1, 3)
    weights = np.sqrt([2, 4, 3])  # about how much the eye sees of a difference in red, green and blue
    distance = np.full(len(free), np.inf)
    colors = np.zeros((len(given), 3))
    fixed = [index for index, color in enumerate(given) if color]
    for index in (*fixed, *(index for index, color in enumerate(given) if not color)):
        colors[index] = given[index] or free[distance.argmax()]
        distance = np.minimum(distance, np.linalg.norm((free - colors[index]) * weights, axis=1))
    return colors.astype(np.uint8)


def class_colors(count: int) -> list[Color]:
    """As many colors as classes, none near black or white."""
    colors = palette([(0, 0, 0), (255, 255, 255), *[None] * count])[2:].tolist()
    return [(red, green, blue) for red, green, blue in colors]


def ink(paper: Color) -> Color:
    """Black or white, whichever can be read on a color."""
    red, green, blue = paper
    return (0, 0, 0) if 0.299 * red + 0.587 * green + 0.114 * blue > 140 else (255, 255, 255)


def enlarged(image: Image.Image, least: int = 384) -> tuple[Image.Image, int]:
    """The image so many times as large that its longer side has at least `least` pixels, and how many times."""
    factor = max(-(-least // max(image.size)), 1)
    return image.resize((image.width * factor, image.height * factor), Image.Resampling.BICUBIC), factor


def font() -> str:
    """A font file that is always there: Matplotlib brings it."""
    import matplotlib

    return str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf")
