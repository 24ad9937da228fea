"""Reading images as a person sees them: upright, opaque, 8-bit RGB."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import IO

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from fastvit.errors import UnreadableImageError, UserError
from fastvit.files import user_path

IMAGE_SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp")


def read_image(source: str | Path | bytes | IO[bytes], name: str | None = None) -> Image.Image:
    """Decode an image file to 8-bit RGB.

    Turned as its EXIF orientation says; 16-bit and float pixels are scaled, not clipped; transparency lies on white;
    of an animation the first frame.

    Args:
        source: path, content, or open binary file.
        name: what to call it in an error, if not its path.

    Raises:
        UnreadableImageError: it does not exist, is no image, or is cut short.
    """
    name = name or (str(source) if isinstance(source, (str, Path)) else getattr(source, "name", "the image"))
    try:
        with warnings.catch_warnings():
            # Pillow only warns of a decompression bomb up to twice its limit; a photo of that size is none.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source) as image:
                image.load()
                ImageOps.exif_transpose(image, in_place=True)  # else it copies images that are upright
                return to_rgb(image)
    except FileNotFoundError as error:
        raise UnreadableImageError(f"there is no file {name}") from error
    except UnidentifiedImageError as error:
        raise UnreadableImageError(f"{name} is no image that can be read") from error
    except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError) as error:
        raise UnreadableImageError(f"{name} cannot be decoded: {error}") from error


def to_rgb(image: Image.Image) -> Image.Image:
    """8-bit RGB of an image in any of Pillow's modes."""
    if image.mode in ("I;16", "I;16L", "I;16B", "I;16N", "I", "F"):
        pixels = np.asarray(image, np.float64)
        peak = _peak(image.mode, float(pixels.max(initial=0)))
        return Image.fromarray(np.clip(np.rint(pixels * (255 / peak)), 0, 255).astype(np.uint8)).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        opaque = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), opaque).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")


def _peak(mode: str, brightest: float) -> float:
    """The value of white: files that open as I or F do not state their range, so it is guessed from the pixels."""
    if mode == "F" and brightest <= 1:
        return 1.0
    if mode in ("I", "F") and brightest <= 255:
        return 255.0
    return 65535.0


def find_images(sources: Iterable[str | Path]) -> list[Path]:
    """Image files that paths, folders (searched through) and glob patterns stand for, sorted within each.

    Raises:
        UserError: a source stands for no image.
    """
    found: list[Path] = []
    for source in sources:
        path = user_path(source)
        if path.is_dir():
            matches = sorted(p for p in path.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES and p.is_file())
            if not matches:
                raise UserError(f"there is no image in the folder {path} (looked for {', '.join(IMAGE_SUFFIXES)})")
        elif path.exists():
            matches = [path]
        else:
            anchor = Path(path.anchor) if path.is_absolute() else Path()
            pattern = str(path.relative_to(path.anchor)) if path.is_absolute() else str(path)
            matches = sorted(p for p in anchor.glob(pattern) if p.is_file()) if set(pattern) & set("*?[") else []
            if not matches:
                raise UserError(f"there is no image {source}")
        found += matches
    return found
