"""Synthetic scenes with several items of the embedded sample: data for detection and segmentation."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image
from scipy import ndimage

from fastvit.data.arrays import FASHION_MNIST_CLASSES, SAMPLE
from fastvit.data.datasets import LabeledImages
from fastvit.data.load import open_images
from fastvit.data.sampling import seed_of
from fastvit.data.split_names import Split
from fastvit.synthetic.folder import README, check_arguments, dataset_folder

SEMANTIC_CLASSES = ("background", *FASHION_MNIST_CLASSES)
# RGB of each semantic class; the colors can be told apart in a small image.
PALETTE = (
    *((0, 0, 0), (230, 25, 75), (60, 180, 75), (255, 225, 25), (0, 130, 200), (245, 130, 48)),
    *((145, 30, 180), (70, 240, 240), (240, 50, 230), (170, 110, 40), (220, 190, 255)),
)
SIZES = 64, 4096
# Split of the sample for the items of each split of the dataset.
SOURCES: dict[str, Split] = {"train": "train", "val": "test"}

_COUNTS = 2, 6
# Longer side of an item, as a fraction of the scene's side.
_EXTENTS = 0.19, 0.5
# Pixels of the sample above this gray value (0 to 255) belong to the item; the background is black.
_THRESHOLD = 40
_MIN_VISIBLE, _MIN_PIXELS = 0.25, 30
# Smallest distance in RGB (0 to 441) between the mean colors of an item and of the pixels below it.
_CONTRAST = 70
_TRIES = 60
_TITLE = "# Scenes of Fashion-MNIST items"
_LEFT = {"images", "masks", "annotations", "classes.txt"}


@dataclass(frozen=True)
class Scene:
    """Synthetic image with its annotations.

    Attributes:
        image: (S, S, 3) uint8, RGB.
        owners: (S, S) int64, number of the visible instance at each pixel, from 1; 0 for the background.
        labels: (N,) int64, semantic class of each instance, 1 to 10.
        items: (N,) int64, index of each instance's image in the source.
    """

    image: np.ndarray
    owners: np.ndarray
    labels: np.ndarray
    items: np.ndarray

    @property
    def masks(self) -> np.ndarray:
        """Masks of the visible part of each instance, (N, S, S) bool; they do not overlap."""
        return self.owners == np.arange(1, len(self.labels) + 1)[:, None, None]

    @property
    def boxes(self) -> np.ndarray:
        """Boxes of the visible part of each instance, (N, 4) int64: left, top, width and height in pixels."""
        slices = ndimage.find_objects(self.owners, max_label=len(self.labels))
        boxes = [(x.start, y.start, x.stop - x.start, y.stop - y.start) for y, x in slices]
        return np.array(boxes, np.int64).reshape(-1, 4)

    @property
    def semantic(self) -> np.ndarray:
        """Semantic class of each pixel, (S, S) uint8; 0 for the background."""
        return np.append(0, self.labels).astype(np.uint8)[self.owners]


def make_scene(items: LabeledImages, size: int, generator: np.random.Generator) -> Scene:
    """Create a scene of two to six items at random positions on a textured background; later items cover earlier ones.

    Every instance is completely inside the image, and at least a quarter and 30 pixels of each are visible. Colors are
    random, so that they do not depend on the class or on the position.

    Args:
        items: images of gray items on black, as in Fashion-MNIST, with classes 0 to 9.
        size: side S of the image, in pixels, at least 64.
        generator: random generator; its state determines the scene.
    """
    canvas = _background(size, generator)
    owners = np.zeros((size, size), np.int64)
    areas: list[int] = []
    chosen: list[int] = []
    wanted = int(generator.integers(_COUNTS[0], _COUNTS[1] + 1))
    for _ in range(_TRIES):
        item = int(generator.integers(len(items)))
        cutout = _cut_out(items.image(item), round(size * generator.uniform(*_EXTENTS)), generator)
        if cutout is None:
            continue
        height, width = cutout.mask.shape
        top, left = (int(generator.integers(size - extent + 1)) for extent in (height, width))
        region = slice(top, top + height), slice(left, left + width)
        tried = owners.copy()
        tried[region][cutout.mask] = len(chosen) + 1
        own = np.array([*areas, cutout.mask.sum()])
        visible = np.bincount(tried.ravel(), minlength=len(own) + 1)[1:]
        if (visible < np.maximum(own * _MIN_VISIBLE, _MIN_PIXELS)).any():
            continue
        owners = tried
        areas.append(int(own[-1]))
        chosen.append(item)
        below = canvas[region]
        colors = _tint(cutout.gray, below[cutout.mask].mean(0), cutout.mask, generator)
        canvas[region] += cutout.alpha[..., None] * (colors - below)
        if len(chosen) == wanted:
            break
    canvas += generator.normal(0, generator.uniform(0, 5), canvas.shape)
    labels = np.array([items.labels[item] + 1 for item in chosen], np.int64)
    return Scene(_bytes(canvas), owners, labels, np.array(chosen, np.int64))


class _Cutout(NamedTuple):
    """Item without its background: gray values 0 to 1, opacity 0 to 1, and the mask of its pixels, all (H, W)."""

    gray: np.ndarray
    alpha: np.ndarray
    mask: np.ndarray


def _cut_out(image: Image.Image, extent: int, generator: np.random.Generator) -> _Cutout | None:
    """Cut out an item, resize its longer side to `extent` pixels, and flip it at random; None if it is too small."""
    source = np.asarray(image.convert("L"))
    bright = source > _THRESHOLD
    if bright.sum() < _MIN_PIXELS:
        return None
    rows, columns = (np.flatnonzero(bright.any(axis)) for axis in (1, 0))
    # One pixel around the item is black, so that the edges of the item stay where they are.
    frame = (columns[0] - 1, rows[0] - 1, columns[-1] + 2, rows[-1] + 2)
    width, height = columns[-1] + 1 - columns[0], rows[-1] + 1 - rows[0]
    scale = extent / max(width, height)
    shape = round((width + 2) * scale), round((height + 2) * scale)
    gray = np.asarray(image.convert("L").crop(frame).resize(shape, Image.Resampling.BICUBIC), np.float64)
    if generator.random() < 0.5:
        gray = gray[:, ::-1]
    filled = ndimage.binary_fill_holes(gray > _THRESHOLD)
    parts, count = ndimage.label(filled)
    sizes = np.bincount(parts.ravel())[1:]
    # An item with much black is cut into parts: the largest part would not show the item.
    if not count or sizes.max() < max(0.85 * sizes.sum(), _MIN_PIXELS):
        return None
    mask = parts == sizes.argmax() + 1
    alpha = ndimage.gaussian_filter(mask.astype(np.float64), 0.7)
    # Limit the opacity of the blurred edge: outside of the mask to 0.4, inside it to at least 0.5.
    alpha = np.where(mask, np.maximum(alpha, 0.5), np.minimum(alpha, 0.4))
    return _Cutout(gray / max(gray[mask].max(), 1), alpha, mask)


def _tint(gray: np.ndarray, below: np.ndarray, mask: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Return colors (H, W, 3) for gray values, from dark to light or back, that contrast with the color below."""
    mean = gray[mask].mean()
    for _ in range(_TRIES):
        first, second = generator.uniform(0, 255, (2, 3))
        # With two colors of similar brightness, the drawing on the item would be lost.
        if abs(first.mean() - second.mean()) > 60 and np.linalg.norm(_mixed(first, second, mean) - below) > _CONTRAST:
            break
    return _mixed(first, second, gray)


def _background(size: int, generator: np.random.Generator) -> np.ndarray:
    """Return a background (S, S, 3), about 0 to 255: blended colors in patches, stripes or checks, with grain."""
    colors = generator.uniform(20, 235, (3, 3))
    y, x = np.mgrid[:size, :size] / size
    first, second = (_noise(size, int(generator.integers(*cells)), generator) for cells in ((2, 5), (4, 17)))
    canvas = _mixed(colors[0], colors[1], _sigmoid(2 * first + _wave(x, y, 0.5, generator)))
    pattern = generator.integers(4)
    if pattern == 0:
        weights = _sigmoid(3 * second)
    elif pattern == 1:
        weights = _sigmoid(generator.uniform(2, 8) * _wave(x, y, generator.uniform(3, 14), generator))
    elif pattern == 2:
        frequency = generator.uniform(2, 9)
        checks = _wave(x, y, frequency, generator) * _wave(x, y, frequency, generator)
        weights = _sigmoid(generator.uniform(3, 10) * checks)
    else:
        # Stripes bent by the noise, as in wood or marble.
        weights = _sigmoid(3 * np.sin(generator.uniform(3, 9) * (first + 2 * x + second / 4)))
    canvas = _mixed(canvas, colors[2], generator.uniform(0.25, 0.8) * weights)
    grain = _noise(size, size // 2, generator)[..., None]
    return canvas + generator.uniform(2, 12) * grain


def _noise(size: int, cells: int, generator: np.random.Generator) -> np.ndarray:
    """Return normal noise (S, S), interpolated from a grid of `cells` x `cells` values."""
    coarse = generator.normal(size=(cells, cells)).astype(np.float32)
    return np.asarray(Image.fromarray(coarse).resize((size, size), Image.Resampling.BICUBIC), np.float64)


def _wave(x: np.ndarray, y: np.ndarray, frequency: float, generator: np.random.Generator) -> np.ndarray:
    """Return a sine wave (S, S) in a random direction; `frequency` is its number of periods per image."""
    angle, phase = generator.uniform(0, 2 * np.pi, 2)
    return np.sin(2 * np.pi * frequency * (x * np.cos(angle) + y * np.sin(angle)) + phase)


def _sigmoid(values: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-values))


def _mixed(first: np.ndarray, second: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Interpolate between two colors, for weights (...) from 0 (first) to 1 (second): (..., 3)."""
    return first + weights[..., None] * (second - first)


def _bytes(canvas: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(canvas), 0, 255).astype(np.uint8)


def write_scenes(
    folder: Path, images: int, size: int, seed: int, overwrite: bool = False
) -> dict[str, tuple[int, int]]:
    """Write a dataset of synthetic scenes: images, semantic masks, COCO annotations of instances, class names.

    The same arguments give the same bytes. A scene depends on the seed, the size and its index only: with more images,
    the first ones stay the same. The folder is created after all files are written.

    Args:
        folder: folder to write; it may exist if it is empty.
        images: number of training scenes, with items of the sample's training split; a fifth of it, at least 1, are
            added for validation, with items of the sample's test split.
        size: side of the scenes, in pixels, 64 to 4096.
        seed: random seed, at least 0.
        overwrite: replace a dataset of synthetic scenes in the folder.

    Returns:
        Number of scenes and number of instances by split ("train", "val").

    Raises:
        UserError: an argument is out of range, or the folder contains other files or cannot be written.
    """
    check_arguments(images, size, SIZES, seed)
    command = f"fastvit synth scenes DIR --images {images} --size {size} --seed {seed}"
    with dataset_folder(folder, overwrite, "scenes", (_TITLE,), _LEFT) as part:
        written = {
            split: _write_split(part, split, count, size, seed, command)
            for split, count in (("train", images), ("val", max(1, images // 5)))
        }
        lines = (f"{i}\t{name}\t{' '.join(map(str, PALETTE[i]))}" for i, name in enumerate(SEMANTIC_CLASSES))
        (part / "classes.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
        (part / README).write_text(_readme(command, written), encoding="utf-8")
    return written


def _write_split(root: Path, split: str, count: int, size: int, seed: int, command: str) -> tuple[int, int]:
    """Write the scenes of a split, and return the number of scenes and of instances."""
    from fastvit.console import track

    items = open_images("sample", SOURCES[split])
    image_folder, masks, annotations = (root / kind for kind in ("images", "masks", "annotations"))
    for path in (image_folder / split, masks / split, annotations):
        path.mkdir(parents=True, exist_ok=True)
    entries: list[dict[str, Any]] = []
    instances: list[dict[str, Any]] = []
    for index in track(range(count), f"{split} scenes"):
        split_index = list(SOURCES).index(split)
        scene = make_scene(items, size, np.random.default_rng(seed_of(seed, split_index, index)))
        name = f"{index:06d}.png"
        Image.fromarray(scene.image).save(
            image_folder / split / name, compress_level=3
        )  # higher levels are slow and save little, because of the grain
        mask = Image.fromarray(scene.semantic)
        # 256 colors: with at most 16, Pillow packs two pixels into a byte, which not every reader supports.
        mask.putpalette(bytes(value for color in PALETTE for value in color).ljust(768, b"\0"))
        mask.save(masks / split / name)
        entries.append({"id": index + 1, "file_name": name, "width": size, "height": size, "license": 1})
        instances += _annotations(scene, index + 1, len(instances) + 1)
    content = {
        "info": {
            "description": f"Scenes of items of Fashion-MNIST's {SOURCES[split]} split: {command}",
            "version": "1.0",
            "contributor": "fastvit; items by Zalando SE",
            "url": "https://github.com/zalandoresearch/fashion-mnist",
        },
        "licenses": [
            {
                "id": 1,
                "name": "MIT License, Copyright (c) 2017 Zalando SE, https://tech.zalando.com",
                "url": "https://github.com/zalandoresearch/fashion-mnist/blob/master/LICENSE",
            }
        ],
        "images": entries,
        "annotations": instances,
        "categories": [
            {"id": i, "name": name, "supercategory": "clothing"} for i, name in enumerate(FASHION_MNIST_CLASSES, 1)
        ],
    }
    (annotations / f"instances_{split}.json").write_text(json.dumps(content), encoding="utf-8")
    return count, len(instances)


def _annotations(scene: Scene, image: int, first: int) -> list[dict[str, Any]]:
    """Return COCO annotations of a scene's instances, numbered from `first` on; "item" is an extra field."""
    from pycocotools.mask import encode

    rows = zip(scene.masks, scene.boxes.tolist(), scene.labels.tolist(), scene.items.tolist(), strict=True)
    return [
        {
            "id": number,
            "image_id": image,
            "category_id": label,
            "bbox": box,
            "area": int(mask.sum()),
            "iscrowd": 0,
            "segmentation": {
                "size": list(mask.shape),
                "counts": encode(np.asfortranarray(mask, np.uint8))["counts"].decode(),
            },
            "item": item,
        }
        for number, (mask, box, label, item) in enumerate(rows, first)
    ]


def _readme(command: str, written: dict[str, tuple[int, int]]) -> str:
    """Return the README of the folder."""
    counts = "\n".join(
        f"- `{split}`: {scenes:,} scenes with {instances:,} instances, of items of the sample's {SOURCES[split]} split"
        for split, (scenes, instances) in written.items()
    )
    license_text = (SAMPLE / "LICENSE").read_text(encoding="utf-8")
    return f"""{_TITLE}

Synthetic data for detection and segmentation: clothes of Fashion-MNIST in random sizes, colors and places on
synthetic backgrounds, written by

    {command}

{counts}

- `images/SPLIT/*.png`: the images.
- `masks/SPLIT/*.png`: the semantic class of each pixel; `classes.txt` has a line for each class: index, name, and R G B
  of the palette, separated by tabs.
- `annotations/instances_SPLIT.json`: COCO instances: boxes, areas and masks of the visible part of each item. `item` is
  its index in that split of the sample, from 0.

The items are taken from Fashion-MNIST by Zalando SE, under this license:

{license_text[license_text.index("The MIT License") :]}"""
