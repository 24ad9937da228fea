"""Folders of images with masks, which contain the class of each pixel."""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from fastvit.data.classes import align_classes, shortened
from fastvit.data.folders import split_folder
from fastvit.data.images import IMAGE_SUFFIXES, read_image
from fastvit.data.split_names import SPLIT_TITLES, Split
from fastvit.errors import UnreadableImageError, UserError
from fastvit.files import user_path
from fastvit.tasks.colors import Color, palette
from fastvit.tasks.segmentation.ade20k import ADE20K_CLASSES

# The value of ignored pixels in all masks. Masks are uint8, which has no -100, the label of ignored images
# (`fastvit.data.datasets.IGNORED`).
VOID = 255
# The name of ignored values and colors in classes.txt.
IGNORED_NAME = "ignored"
# Lossless formats.
MASK_SUFFIXES = (".png", ".bmp", ".tif", ".tiff")

_MOST_CLASSES = 254
_LINE = re.compile(r"(\d{1,9})\s+([^\t]+?)(?:\s+(\d{1,3})[\s,]+(\d{1,3})[\s,]+(\d{1,3}))?")
_FORM = "the value in the masks, the name, and for color masks red, green and blue, separated by tabs"


@dataclass(frozen=True)
class Legend:
    """Mapping of the values and colors of masks to classes.

    Attributes:
        names: class names, in order.
        values: value of each class in masks of one channel.
        colors: RGB of each class, or None.
        ignored: ignored values, in addition to 255 and, with 16 bits, 65535.
        ignored_colors: RGB of ignored pixels.
        file: path of classes.txt, even if the file does not exist.
        remedy: what to do about any other value or color, for error messages.
    """

    names: tuple[str, ...]
    values: tuple[int, ...]
    colors: tuple[Color | None, ...]
    ignored: tuple[int, ...]
    ignored_colors: tuple[Color, ...]
    file: Path
    remedy: str


def read_legend(file: Path) -> Legend:
    """Read classes.txt: a line per class with value, name and, for color masks, red, green and blue.

    Values are 0 to 65534. The name "ignored" stands for ignored pixels; the value 255 is always ignored. A # at the
    start of a word starts a comment.

    Raises:
        UserError: the file cannot be read, a line is invalid, a value, name or color occurs twice, or the number of
            classes is 0 or above 254.
    """
    classes: list[tuple[int, str, Color | None]] = []
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{file} cannot be read as text: {error}") from error
    for number, line in enumerate(lines, 1):
        if not (content := re.sub(r"(^|\s)#.*", "", line).strip()):
            continue
        where = f"line {number} of {file}"
        if not (found := _LINE.fullmatch(content)):
            raise UserError(f"{where} is {content!r}: write {_FORM}")
        value, name, *parts = found.groups()
        color: Color | None = (int(parts[0]), int(parts[1]), int(parts[2])) if parts[0] else None
        if int(value) > 65534 or (color and max(color) > 255):
            raise UserError(f"{where} is {content!r}: values may be up to 65534, red, green and blue up to 255")
        if int(value) == VOID and name != IGNORED_NAME:
            raise UserError(
                f"{where} gives {name} the value 255, which is always ignored: use another value, or the name ignored"
            )
        entry = (int(value), name, color)
        for other in classes:
            if other[1] == name == IGNORED_NAME:  # several values and colors may be ignored
                continue
            for what, own, taken in zip(("value", "name", "color"), entry, other, strict=True):
                if own is not None and own == taken:
                    raise UserError(f"{where} has the {what} {own} of a line above: each class needs its own")
        classes.append(entry)
    counted = [entry for entry in classes if entry[1] != IGNORED_NAME]
    ignored = [entry for entry in classes if entry[1] == IGNORED_NAME]
    if not 1 <= len(counted) <= _MOST_CLASSES:
        raise UserError(
            f"{file} has {len(counted)} classes, not 1 to {_MOST_CLASSES}: write a line per class with {_FORM}"
        )
    return Legend(
        tuple(name for _, name, _ in counted),
        tuple(value for value, _, _ in counted),
        tuple(color for _, _, color in counted),
        tuple(value for value, _, _ in ignored),
        tuple(color for _, _, color in ignored if color),
        file,
        f"add a line for each to {file} ({_FORM}), with the name ignored for pixels to ignore",
    )


class MaskedImages:
    """Images with masks of class indices.

    Args:
        images: image files.
        masks: mask file of each image.
        legend: mapping of the values and colors of masks to classes.
        classes: class names that define the indices, such as those of a model; None for the names in the legend (see
            `fastvit.data.classes.align_classes`).

    Attributes:
        classes: K class names.
        palette: (K, 3) uint8: RGB of each class, generated if the legend has none.

    Raises:
        UserError: the legend has classes that are not in `classes`, or there are too many classes.
    """

    def __init__(
        self, images: Sequence[Path], masks: Sequence[Path], legend: Legend, classes: Sequence[str] | None = None
    ) -> None:
        self._images, self._masks, self._legend = images, masks, legend
        self.classes, indices = align_classes(legend.names, classes, str(legend.file.parent))
        if len(self.classes) > _MOST_CLASSES:
            raise UserError(f"masks support up to {_MOST_CLASSES} classes, but the model has {len(self.classes)}")
        given = dict(zip(indices, legend.colors, strict=True))
        self.palette = palette([given.get(index) for index in range(len(self.classes))])
        # The class of each value, and of each color as one number; -1 if it is not listed.
        self._of_value = np.full(65536, -1, np.int16)
        self._of_value[[*legend.ignored, VOID, 65535]] = VOID
        self._of_value[list(legend.values)] = indices
        colored = {_code(color): index for index, color in given.items() if color}
        colored.update(dict.fromkeys(map(_code, legend.ignored_colors), VOID))
        self._codes = np.array(sorted(colored), np.int32)
        self._of_code = np.array([colored[code] for code in sorted(colored)], np.int16)

    def __len__(self) -> int:
        return len(self._images)

    def image(self, index: int) -> Image.Image:
        """Return an image."""
        return read_image(self._images[index])

    def name(self, index: int) -> str:
        """Return the path of an image."""
        return str(self._images[index])

    def mask(self, index: int) -> np.ndarray:
        """Return the mask of an image, (H, W) uint8: the class of each pixel, 0 to K - 1, or 255 if ignored.

        Raises:
            UnreadableImageError: the image or its mask cannot be decoded.
            UserError: image and mask differ in size, or the mask has a value or color that is not in the legend.
        """
        return self.pair(index)[1]

    def pair(self, index: int) -> tuple[Image.Image, np.ndarray]:
        """Return an image and its mask, from one decoding of the image.

        Raises:
            UnreadableImageError: the image or its mask cannot be decoded.
            UserError: image and mask differ in size, or the mask has a value or color that is not in the legend.
        """
        image, path = self.image(index), self._masks[index]
        pixels = _read_pixels(path)
        if pixels.shape[:2] != (image.height, image.width):
            raise UserError(
                f"{self._images[index]} is {image.width}x{image.height} pixels, but its mask {path} is "
                f"{pixels.shape[1]}x{pixels.shape[0]}: make them the same size"
            )
        return image, self._by_color(pixels, path) if pixels.ndim == 3 else self._by_value(pixels, path)

    def _by_value(self, pixels: np.ndarray, path: Path) -> np.ndarray:
        labels = self._of_value[pixels]
        if labels.min(initial=0) < 0:
            unknown = [str(value) for value in np.unique(pixels[labels < 0])]
            raise UserError(f"the mask {path} has values without a class ({shortened(unknown)}): {self._legend.remedy}")
        return labels.astype(np.uint8)

    def _by_color(self, pixels: np.ndarray, path: Path) -> np.ndarray:
        if not len(self._codes):
            raise UserError(
                f"the mask {path} is in color, but no class has a color: add colors to {self._legend.file} ({_FORM}), "
                "or use masks of one channel"
            )
        red, green, blue = (pixels[..., channel].astype(np.int32) for channel in range(3))
        codes = (red << 16) | (green << 8) | blue
        indices = np.searchsorted(self._codes, codes).clip(max=len(self._codes) - 1)
        known = self._codes[indices] == codes
        if not known.all():
            unknown = [f"{code >> 16} {code >> 8 & 255} {code & 255}" for code in np.unique(codes[~known]).tolist()]
            raise UserError(f"the mask {path} has colors without a class ({shortened(unknown)}): {self._legend.remedy}")
        return self._of_code[indices].astype(np.uint8)


def open_masks(source: str | Path, split: Split, classes: Sequence[str] | None = None) -> MaskedImages:
    """Open the images and masks of a split.

    Args:
        source: folder with images/train and masks/train, or train and masks/train, the same for val (or valid,
            validation, test, testing), and classes.txt (see `read_legend`). A mask has the name of its image and the
            suffix of a lossless format. It has one channel of 1, 8 or 16 bits (values or palette indices), or is in RGB
            if classes.txt has colors; an alpha channel is ignored. Or ADE20K's scene parsing benchmark in its original
            layout, images/training, annotations/training and the same for validation, with 150 built-in classes.
        split: "train", or "test" for the validation split.
        classes: class names that define the indices, such as those of a model; the data may have fewer classes, but no
            others. None for the names in classes.txt.

    Raises:
        UserError: a folder, an image, a mask or classes.txt is missing or invalid.
    """
    root = user_path(source)
    if not root.is_dir():
        raise UserError(
            f"the folder {root.absolute()} does not exist; expected a folder with images/train, masks/train and "
            "classes.txt"
        )
    image_folder, mask_folder = _split_folders(root, split)
    file = root / "classes.txt"
    if file.exists():
        legend = read_legend(file)
    elif image_folder.name in ("training", "validation") and mask_folder.parent.name == "annotations":
        count = len(ADE20K_CLASSES)
        remedy = f"masks of ADE20K have 0 to {count}; for other masks write {file}, a line per class with {_FORM}"
        legend = Legend(ADE20K_CLASSES, tuple(range(1, count + 1)), (None,) * count, (0,), (), file, remedy)
    else:
        raise UserError(
            f"the file {file} does not exist: write it with a line per class with {_FORM}, such as "
            "0<tab>background<tab>0 0 0"
        )
    return MaskedImages(*_pairs(image_folder, mask_folder), legend, classes)


def _split_folders(root: Path, split: Split) -> tuple[Path, Path]:
    """Return the image folder and the mask folder of a split."""
    for parent in (root / "images", root):
        if parent.is_dir() and (images := split_folder(parent, split)):
            for kind in ("masks", "annotations"):
                if (masks := root / kind / images.name).is_dir():
                    return images, masks
            if parent == root and not any((root / kind).is_dir() for kind in ("masks", "annotations")):
                raise _wrong_layout(root, images.name)
            raise UserError(f"{images} has images without masks: put a mask for each in {root / 'masks' / images.name}")
    name = "train" if split == "train" else "val"
    if any((root / kind).is_dir() for kind in ("masks", "annotations")):
        raise UserError(
            f"{root} has no {SPLIT_TITLES[split]} images: put them in images/{name}, and a mask of the same name for "
            f"each in masks/{name}"
        )
    raise _wrong_layout(root, name)


def _wrong_layout(root: Path, name: str) -> UserError:
    """Return the error for a folder that is laid out otherwise, such as in class folders."""
    return UserError(
        f"{root} does not have the layout of segmentation data: expected {root}/images/{name}/*.jpg and "
        f"{root}/masks/{name}/*.png"
    )


def _pairs(image_folder: Path, mask_folder: Path) -> tuple[list[Path], list[Path]]:
    """Return the images of a folder, sorted by name, and their masks."""
    images, masks = _named(image_folder, IMAGE_SUFFIXES), _named(mask_folder, MASK_SUFFIXES)
    if not images:
        raise UserError(f"{image_folder} contains no images ({', '.join(IMAGE_SUFFIXES)})")
    problems, remedies = [], []
    if alone := [paths[0] for name, paths in images.items() if name not in masks]:
        count = "1 image has" if len(alone) == 1 else f"{len(alone)} images have"
        problems.append(f"{count} no mask in {mask_folder}: {_first(alone, image_folder)}")
        *most, last = MASK_SUFFIXES
        remedies.append(f"add a mask with the same name ({', '.join(most)} or {last}), or remove the image")
    if alone := [paths[0] for name, paths in masks.items() if name not in images]:
        count = "1 mask has" if len(alone) == 1 else f"{len(alone)} masks have"
        problems.append(f"{count} no image in {image_folder}: {_first(alone, mask_folder)}")
        remedies.append("add an image with the same name, or remove the mask")
    for folder, found in ((image_folder, images), (mask_folder, masks)):
        if twins := [path for paths in found.values() if len(paths) > 1 for path in paths]:
            problems.append(f"{len(twins)} files in {folder} differ only in their suffix: {_first(twins, folder)}")
            remedies.append("keep one file of each name")
    if problems:
        raise UserError("; ".join([*problems, *dict.fromkeys(remedies)]))
    return [paths[0] for paths in images.values()], [masks[name][0] for name in images]


def _named(folder: Path, suffixes: Sequence[str]) -> dict[str, list[Path]]:
    """Return the images in a folder and its subfolders, sorted, by path without suffix; hidden ones are left out."""
    found: dict[str, list[Path]] = {}
    for path in sorted(folder.rglob("*")):
        inside = path.relative_to(folder)
        if path.suffix.lower() in suffixes and not any(part.startswith(".") for part in inside.parts):
            found.setdefault(inside.with_suffix("").as_posix(), []).append(path)
    return found


def _first(paths: Sequence[Path], folder: Path) -> str:
    """Return the first ten paths, and the number of the others."""
    names = ", ".join(str(path.relative_to(folder)) for path in paths[:10])
    return f"{names}{f' and {len(paths) - 10} more' if len(paths) > 10 else ''}"


def _read_pixels(path: Path) -> np.ndarray:
    """Return the stored values (H, W) or colors (H, W, 3) of a mask."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # as for images
            with Image.open(path) as image:
                image.load()
                ImageOps.exif_transpose(image, in_place=True)
                mode, pixels = image.mode, np.asarray(image)
    except UnidentifiedImageError as error:
        raise UnreadableImageError(f"the mask {path} is not a readable image") from error
    except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError) as error:
        raise UnreadableImageError(f"the mask {path} cannot be decoded: {error}") from error
    if mode in ("1", "L", "P", "LA", "PA"):
        return (pixels if pixels.ndim == 2 else pixels[..., 0]).astype(np.uint8)
    if mode in ("RGB", "RGBA", "RGBX"):
        return pixels[..., :3]
    if mode.startswith("I") and pixels.min(initial=0) >= 0 and pixels.max(initial=0) <= 65535:
        return pixels.astype(np.uint16)
    raise UserError(f"the mask {path} has Pillow's mode {mode}: convert it to one channel of 8 or 16 bits, or to RGB")


def _code(color: Color) -> int:
    """Return a color as one integer."""
    red, green, blue = color
    return red << 16 | green << 8 | blue
