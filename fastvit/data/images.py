"""Reading image files: upright, opaque, 8-bit RGB."""

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

    The EXIF orientation is applied. 16-bit and float pixels are scaled, not clipped. Transparent pixels are blended
    with white. Only the first frame of an animation is read.

    Args:
        source: path, content, or open binary file of the image.
        name: name of the image in errors, by default its path.

    Raises:
        UnreadableImageError: the file does not exist, is not an image, or is corrupt or truncated.
    """
    name = name or (str(source) if isinstance(source, (str, Path)) else getattr(source, "name", "the image"))
    try:
        with warnings.catch_warnings():
            # Up to twice its limit, Pillow only warns of a decompression bomb; photos can be that large.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source) as image:
                image.load()
                ImageOps.exif_transpose(image, in_place=True)  # otherwise it copies upright images
                return to_rgb(image)
    except FileNotFoundError as error:
        raise UnreadableImageError(f"{name} does not exist") from error
    except UnidentifiedImageError as error:
        raise UnreadableImageError(f"{name} is not a readable image") from error
    except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError) as error:
        raise UnreadableImageError(f"{name} cannot be decoded: {error}") from error


def to_rgb(image: Image.Image) -> Image.Image:
    """Convert an image in any of Pillow's modes to 8-bit RGB."""
    if image.mode in ("I;16", "I;16L", "I;16B", "I;16N", "I", "F"):
        pixels = np.asarray(image, np.float64)
        peak = _peak(image.mode, float(pixels.max(initial=0)))
        return Image.fromarray(np.clip(np.rint(pixels * (255 / peak)), 0, 255).astype(np.uint8)).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        opaque = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), opaque).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")


def _peak(mode: str, brightest: float) -> float:
    """Return the value of white: the modes I and F do not define it, so it is inferred from the pixels."""
    if mode == "F" and brightest <= 1:
        return 1.0
    if mode in ("I", "F") and brightest <= 255:
        return 255.0
    return 65535.0


def find_images(sources: Iterable[str | Path]) -> list[Path]:
    """List the image files of paths, folders (searched recursively) and glob patterns, sorted within each source.

    Raises:
        UserError: a path does not exist, or no image was found for a folder or a pattern.
    """
    found: list[Path] = []
    for source in sources:
        path = user_path(source)
        if path.is_dir():
            matches = sorted(p for p in path.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES and p.is_file())
            if not matches:
                raise UserError(f"the folder {path} contains no images (searched for {', '.join(IMAGE_SUFFIXES)})")
        elif path.exists():
            matches = [path]
        else:
            anchor = Path(path.anchor) if path.is_absolute() else Path()
            pattern = str(path.relative_to(path.anchor)) if path.is_absolute() else str(path)
            if not set(pattern) & set("*?["):
                raise UserError(f"{source} does not exist")
            matches = sorted(p for p in anchor.glob(pattern) if p.is_file())
            if not matches:
                raise UserError(f"no image was found at {source}")
        found += matches
    return found
