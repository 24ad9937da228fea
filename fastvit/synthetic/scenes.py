"""Synthetic scenes of several items each, from the embedded sample: data for detection and segmentation."""

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
from fastvit.synthetic.folder import README, check_wanted, dataset_folder

SEMANTIC_CLASSES = ("background", *FASHION_MNIST_CLASSES)
# RGB of each semantic class, as different from each other as can be told apart in a small picture.
PALETTE = (
    *((0, 0, 0), (230, 25, 75), (60, 180, 75), (255, 225, 25), (0, 130, 200), (245, 130, 48)),
    *((145, 30, 180), (70, 240, 240), (240, 50, 230), (170, 110, 40), (220, 190, 255)),
)
SIZES = 64, 4096
# Where the items of each split of the dataset come from.
SOURCES: dict[str, Split] = {"train": "train", "val": "test"}

_COUNTS = 2, 6
# Longer side of an item, as a share of the scene's side.
_EXTENTS = 0.19, 0.5
# Gray value, of 255, from which on a pixel of the sample is one of the item; its background is black.
_THRESHOLD = 40
_MIN_VISIBLE, _MIN_PIXELS = 0.25, 30
# Least distance in RGB, of 441, between the mean colors of an item and of what it lies on.
_CONTRAST = 70
_TRIES = 60
_TITLE = "# Scenes of Fashion-MNIST items"
_LEFT = {"images", "masks", "annotations", "classes.txt"}


@dataclass(frozen=True)
class Scene:
    """A picture and what is in it.

    Attributes:
        image: (S, S, 3) uint8, RGB.
        owners: (S, S) int64: 0 where the background is seen, n where the nth instance is.
        labels: (N,) int64, semantic class of each instance, 1 to 10.
        items: (N,) int64, which image of the source each instance is.
    """

    image: np.ndarray
    owners: np.ndarray
    labels: np.ndarray
    items: np.ndarray

    @property
    def masks(self) -> np.ndarray:
        """(N, S, S) bool: the visible part of each instance; no two have a pixel in common."""
        return self.owners == np.arange(1, len(self.labels) + 1)[:, None, None]

    @property
    def boxes(self) -> np.ndarray:
        """(N, 4) int64: left, top, width and height in pixels of the visible part of each instance."""
        slices = ndimage.find_objects(self.owners, max_label=len(self.labels))
        boxes = [(x.start, y.start, x.stop - x.start, y.stop - y.start) for y, x in slices]
        return np.array(boxes, np.int64).reshape(-1, 4)

    @property
    def semantic(self) -> np.ndarray:
        """(S, S) uint8: the semantic class of each pixel, 0 for the background."""
        return np.append(0, self.labels).astype(np.uint8)[self.owners]


def make_scene(items: LabeledImages, size: int, generator: np.random.Generator) -> Scene:
    """Two to six items at random places on a textured background; the later ones hide parts of the earlier.

    Every instance lies whole inside the picture, and at least a quarter and 30 pixels of each are visible. Colors are
    random, so that they tell neither the class nor where an item is.

    Args:
        items: gray items on black, as Fashion-MNIST has them, of the classes 0 to 9.
        size: side S of the picture in pixels, 64 or more.
        generator: what everything random is drawn from; the scene follows from its state.
    """
    picture = _background(size, generator)
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
        place = slice(top, top + height), slice(left, left + width)
        tried = owners.copy()
        tried[place][cutout.mask] = len(chosen) + 1
        own = np.array([*areas, cutout.mask.sum()])
        visible = np.bincount(tried.ravel(), minlength=len(own) + 1)[1:]
        if (visible < np.maximum(own * _MIN_VISIBLE, _MIN_PIXELS)).any():
            continue
        owners = tried
        areas.append(int(own[-1]))
        chosen.append(item)
        below = picture[place]
        colors = _tint(cutout.gray, below[cutout.mask].mean(0), cutout.mask, generator)
        picture[place] += cutout.alpha[..., None] * (colors - below)
        if len(chosen) == wanted:
            break
    picture += generator.normal(0, generator.uniform(0, 5), picture.shape)
    labels = np.array([items.labels[item] + 1 for item in chosen], np.int64)
    return Scene(_bytes(picture), owners, labels, np.array(chosen, np.int64))


class _Cutout(NamedTuple):
    """An item without its background: gray values from 0 to 1, opacity from 0 to 1, and its pixels, all (H, W)."""

    gray: np.ndarray
    alpha: np.ndarray
    mask: np.ndarray


def _cut_out(image: Image.Image, extent: int, generator: np.random.Generator) -> _Cutout | None:
    """The item, its longer side `extent` pixels long, perhaps flipped; None where too little of it is there."""
    source = np.asarray(image.convert("L"))
    bright = source > _THRESHOLD
    if bright.sum() < _MIN_PIXELS:
        return None
    rows, columns = (np.flatnonzero(bright.any(axis)) for axis in (1, 0))
    # What is cut off here is black, so that the edges of the item are found where they are.
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
    # An item of which much is as black as its background falls apart: what is left would be no item.
    if not count or sizes.max() < max(0.85 * sizes.sum(), _MIN_PIXELS):
        return None
    mask = parts == sizes.argmax() + 1
    alpha = ndimage.gaussian_filter(mask.astype(np.float64), 0.7)
    # Beyond the mask the item is seen as little as a blurred edge needs, inside it as much.
    alpha = np.where(mask, np.maximum(alpha, 0.5), np.minimum(alpha, 0.4))
    return _Cutout(gray / max(gray[mask].max(), 1), alpha, mask)


def _tint(gray: np.ndarray, below: np.ndarray, mask: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """(H, W, 3) colors for gray values, dark to light or light to dark, that stand out from the color below."""
    mean = gray[mask].mean()
    for _ in range(_TRIES):
        first, second = generator.uniform(0, 255, (2, 3))
        # Two ends of like brightness would leave nothing of what is drawn on the item.
        if abs(first.mean() - second.mean()) > 60 and np.linalg.norm(_mixed(first, second, mean) - below) > _CONTRAST:
            break
    return _mixed(first, second, gray)


def _background(size: int, generator: np.random.Generator) -> np.ndarray:
    """(S, S, 3) float64, about 0 to 255: colors that flow together, in patches, stripes or checks, with grain."""
    colors = generator.uniform(20, 235, (3, 3))
    y, x = np.mgrid[:size, :size] / size
    first, second = (_noise(size, int(generator.integers(*cells)), generator) for cells in ((2, 5), (4, 17)))
    picture = _mixed(colors[0], colors[1], _sigmoid(2 * first + _wave(x, y, 0.5, generator)))
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
        # Stripes that the noise bends, as wood or marble has them.
        weights = _sigmoid(3 * np.sin(generator.uniform(3, 9) * (first + 2 * x + second / 4)))
    picture = _mixed(picture, colors[2], generator.uniform(0.25, 0.8) * weights)
    grain = _noise(size, size // 2, generator)[..., None]
    return picture + generator.uniform(2, 12) * grain


def _noise(size: int, cells: int, generator: np.random.Generator) -> np.ndarray:
    """(S, S) normal noise, smooth over a cells-th of the picture."""
    coarse = generator.normal(size=(cells, cells)).astype(np.float32)
    return np.asarray(Image.fromarray(coarse).resize((size, size), Image.Resampling.BICUBIC), np.float64)


def _wave(x: np.ndarray, y: np.ndarray, frequency: float, generator: np.random.Generator) -> np.ndarray:
    """(S, S) sine in a random direction, of as many periods a picture."""
    angle, phase = generator.uniform(0, 2 * np.pi, 2)
    return np.sin(2 * np.pi * frequency * (x * np.cos(angle) + y * np.sin(angle)) + phase)


def _sigmoid(values: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-values))


def _mixed(first: np.ndarray, second: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """(..., 3) colors between two, for weights (...) from 0 for the first to 1 for the second."""
    return first + weights[..., None] * (second - first)


def _bytes(picture: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(picture), 0, 255).astype(np.uint8)


def write_scenes(
    folder: Path, images: int, size: int, seed: int, overwrite: bool = False
) -> dict[str, tuple[int, int]]:
    """Write a dataset of scenes: pictures, semantic masks, COCO annotations of instances, names of the classes.

    The same arguments give the same bytes. A scene follows from seed, size and its place alone: more images add to the
    same ones. The folder appears when all is written.

    Args:
        folder: to make; may be there if it is empty.
        images: training scenes, of items of the sample's training split; a fifth as many, at least one, for validation,
            of items of its test split.
        size: side of a scene in pixels.
        seed: of everything random.
        overwrite: replace a dataset of scenes that the folder holds.

    Returns:
        By split ("train", "val"), the number of scenes and of instances.

    Raises:
        UserError: an argument makes no sense, or the folder holds other things or cannot be written.
    """
    check_wanted(images, size, SIZES, seed)
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
    """Write the scenes of a split; their number and that of their instances."""
    from fastvit.console import track

    items = open_images("sample", SOURCES[split])
    pictures, masks, annotations = (root / kind for kind in ("images", "masks", "annotations"))
    for path in (pictures / split, masks / split, annotations):
        path.mkdir(parents=True, exist_ok=True)
    entries: list[dict[str, Any]] = []
    instances: list[dict[str, Any]] = []
    for index in track(range(count), f"{split} scenes"):
        place = list(SOURCES).index(split)
        scene = make_scene(items, size, np.random.default_rng(seed_of(seed, place, index)))
        name = f"{index:06d}.png"
        Image.fromarray(scene.image).save(
            pictures / split / name, compress_level=3
        )  # more takes long for little: grain
        mask = Image.fromarray(scene.semantic)
        # 256 colors, for Pillow packs two pixels of fewer than 17 into a byte, which not every reader unpacks.
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
    """COCO annotations of a scene's instances, numbered from `first` on; "item" is our own, which readers pass over."""
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

- `images/SPLIT/*.png`: the pictures.
- `masks/SPLIT/*.png`: the semantic class of each pixel; `classes.txt` has a line for each: index, name, and R G B of
  the palette, with tabs between.
- `annotations/instances_SPLIT.json`: COCO instances: boxes, areas and masks of what is visible of each item. `item` is
  its place in that split of the sample, from 0.

The items are taken from Fashion-MNIST by Zalando SE, under this license:

{license_text[license_text.index("The MIT License") :]}"""
