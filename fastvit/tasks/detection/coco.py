"""Annotated images in COCO's format: the files of a split, and the objects of each image."""

from __future__ import annotations

import gc
import json
import os
import re
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from PIL import ExifTags, Image
from pycocotools import mask as rle_tools

from fastvit.data.classes import align_classes
from fastvit.data.images import read_image
from fastvit.data.split_names import SPLIT_NAMES, SPLIT_TITLES, Split, listed_names
from fastvit.errors import UserError, first_line
from fastvit.files import user_path

_BESIDE = "_annotations.coco.json"
# This matches keys only, because quotes inside a JSON string are escaped; the list contains numbers only.
_POLYGONS = re.compile(rb'"segmentation"\s*:\s*(\[[-+.\deE,\s\[\]]*\])')
# Transposes an upright image back to its stored form, by EXIF orientation; the others keep width and height.
_STORED = {
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}

# JSON of an object's polygons, the counts of COCO's compressed RLE, or None.
Segmentation = str | bytes | None


@dataclass(frozen=True, eq=False)
class Objects:
    """Ground-truth objects of an image.

    Attributes:
        boxes: (N, 4) float32, left, top, right and bottom in pixels, clipped to the image and with a positive area.
        labels: (N,) int64, class indices.
        areas: (N,) float64, areas of the objects in pixels, from the annotations; the box area if that is missing.
        crowd: (N,) bool, True for a group of objects that are not annotated one by one.
        ids: (N,) int64, ids of the annotations.
        size: height and width of the image, in pixels.
        segmentations: segmentation of each object, from its annotation.
        file: annotation file.
    """

    boxes: np.ndarray
    labels: np.ndarray
    areas: np.ndarray
    crowd: np.ndarray
    ids: np.ndarray
    size: tuple[int, int]
    segmentations: Sequence[Segmentation]
    file: Path

    def __len__(self) -> int:
        return len(self.boxes)

    def where(self, keep: np.ndarray) -> Objects:
        """Return the objects for which `keep`, (N,) bool, is True."""
        columns = {name: getattr(self, name)[keep] for name in ("boxes", "labels", "areas", "crowd", "ids")}
        return replace(self, **columns, segmentations=[self.segmentations[i] for i in np.flatnonzero(keep).tolist()])

    def masks(self) -> np.ndarray:
        """Return masks, (N, H, W) uint8, 1 for pixels of the object.

        Raises:
            UserError: an annotation has no segmentation, or one that cannot be decoded.
        """
        if not len(self):
            return np.zeros((0, *self.size), np.uint8)
        rles = [self._rle(i) for i in range(len(self))]
        try:
            return np.ascontiguousarray(rle_tools.decode(rles).transpose(2, 0, 1))
        except ValueError as error:
            broken = next((i for i, rle in enumerate(rles) if not _decodes(rle)), 0)
            raise UserError(
                f"{self.file}: the segmentation of annotation {self.ids[broken]} cannot be decoded ({error}): fix it"
            ) from error

    def _rle(self, index: int) -> dict[str, Any]:
        found = self.segmentations[index]
        if isinstance(found, bytes):
            return {"size": list(self.size), "counts": found}
        polygons = []
        if found:
            try:
                polygons = _polygons(found)
            except (TypeError, ValueError) as error:
                raise UserError(
                    f"{self.file}: the segmentation of annotation {self.ids[index]} is not a list of polygons, each a "
                    "list of alternating x and y; correct it"
                ) from error
        if not polygons:
            raise UserError(
                f"{self.file}: annotation {self.ids[index]} has no segmentation, which masks need; "
                "add it, or train without masks: --detection.network.kind faster_rcnn"
            )
        merged: dict[str, Any] = rle_tools.merge(rle_tools.frPyObjects(polygons, *self.size))
        return merged


def _polygons(text: str) -> list[list[float]]:
    """Return the polygons with at least three corners; fewer corners enclose no area."""
    found = json.loads(text)
    polygons = [found] if found and not isinstance(found[0], list) else found
    for polygon in polygons:
        if len(polygon) % 2 or not np.isfinite(np.array(polygon, np.float64)).all():
            raise ValueError("a coordinate is missing or not a number")
    return [polygon for polygon in polygons if len(polygon) >= 6]


def _decodes(rle: dict[str, Any]) -> bool:
    try:
        rle_tools.decode(rle)
    except ValueError:
        return False
    return True


def open_coco(source: str | Path, split: Split, classes: Sequence[str] | None = None, masks: bool = True) -> CocoImages:
    """Open a split of a folder in COCO's layout, a generic layout, or Roboflow's.

    Args:
        source: folder with annotations/instances_train2017.json and the images in train2017 or images/train2017; with
            annotations/instances_train.json and the images in images/train or train; or with
            train/_annotations.coco.json beside its images. The validation split is called val, valid, validation, test
            or testing; the first of these names that exists is used, and the latest year whose images exist.
        split: "train", or "test" for the validation split.
        classes: class names that define the labels, in this order, such as those of a model; None for the names in the
            data, in the order of the category ids.
        masks: keep the segmentations, which need most of the memory.

    Raises:
        UserError: the split does not exist, or cannot be opened by `CocoImages`.
    """
    root = user_path(source)
    if not root.is_dir():
        raise UserError(f"the folder {root.absolute()} does not exist; expected a folder with {_layouts('train')}")
    file, folders = _located(root, split)
    return CocoImages(file, folders, classes, masks)


class CocoImages:
    """Images of a JSON file in COCO's format, including those without objects.

    Boxes are clipped to the image. Objects whose clipped box has no area, or whose coordinates are NaN, are dropped
    with a warning.

    Args:
        file: annotation file.
        folders: folders to search for the images, the most likely first.
        classes: class names that define the labels; None for the names in the data (see `open_coco`).
        masks: keep the segmentations.

    Attributes:
        classes: class names.
        categories: category id of each class in the file; -1 for a class that is not in the file.
        ids: (n,) int64, ids of the images.
        sizes: (n, 2) int64, height and width of each image, in pixels.
        dropped: ids of the dropped annotations.

    Raises:
        UserError: the file is invalid or contradicts itself, has classes that are not in `classes`, or lists images
            that do not exist.
    """

    def __init__(
        self, file: Path, folders: Sequence[Path], classes: Sequence[str] | None = None, masks: bool = True
    ) -> None:
        self.file = file
        content, self._texts = _read(file, masks)
        images, annotations = (_Table(file, name, content[name]) for name in ("images", "annotations"))
        if not images.records:
            raise UserError(f"{file} lists no images")
        self.ids = images.unique_ids()
        self.sizes = np.stack([images.integers("height"), images.integers("width")], 1)
        for index in np.flatnonzero((self.sizes < 1).any(1))[:1]:
            raise UserError(
                f"{file}: the size of image {self.ids[index]} is not positive; correct its width and height"
            )
        names = [str(name) for name in images.column("file_name")]
        image = annotations.indices("image_id", self.ids, "image")
        self.classes, self.categories, label = _classes(file, content["categories"], annotations, classes)
        boxes, visible = _clipped(annotations.boxes(), self.sizes[image])
        ids = annotations.unique_ids()
        self.dropped = tuple(ids[~visible].tolist())
        # A stable order keeps the annotations of an image as they are in the file.
        order = np.argsort(image, kind="stable")
        order = order[visible[order]]
        self._ends = np.searchsorted(image[order], np.arange(len(self.ids) + 1))
        self._boxes, self._labels, self._ids = boxes[order], label[order], ids[order]
        self._crowd = annotations.integers("iscrowd", 0)[order] != 0
        areas = annotations.floats("area")[order]
        sides = self._boxes[:, 2:] - self._boxes[:, :2]
        self._areas = np.where(np.isnan(areas), sides.prod(1), areas)
        self._text, self._runs = _segmentations(annotations, order, self.sizes[image[order]], masks)
        self._folder = _folder_of(file, names, folders)
        self._names = names
        if self.dropped:
            warnings.warn(
                f"{file}: {len(self.dropped)} objects are dropped, because their boxes have no area inside the image "
                f"(annotations {_listed(self.dropped)})",
                stacklevel=3,
            )

    def __len__(self) -> int:
        return len(self._names)

    def name(self, index: int) -> str:
        """Return the path of an image."""
        return os.path.join(self._folder, self._names[index])  # noqa: PTH118  # a Path for each image costs more

    def image(self, index: int) -> Image.Image:
        """Return an image in the orientation that its boxes refer to.

        Raises:
            UnreadableImageError: the image cannot be decoded.
            UserError: the size of the image differs from the annotation file.
        """
        path = self.name(index)
        image = read_image(path)
        height, width = self.sizes[index].tolist()
        if image.size == (width, height):
            return image
        # The size shows whether the boxes refer to the upright image, or to the stored one.
        with Image.open(path) as stored:
            turn = _STORED.get(stored.getexif().get(ExifTags.Base.Orientation, 1))
            if turn is not None and stored.size == (width, height):
                return image.transpose(turn)
        raise UserError(
            f"{path} is {image.width}x{image.height} pixels, but {self.file} has {width}x{height} for it "
            f"(image {self.ids[index]}): correct its width and height, or use the original image"
        )

    def targets(self, index: int) -> Objects:
        """Return the objects of an image."""
        rows = slice(self._ends[index], self._ends[index + 1])
        height, width = self.sizes[index].tolist()
        return Objects(
            self._boxes[rows],
            self._labels[rows],
            self._areas[rows],
            self._crowd[rows],
            self._ids[rows],
            (height, width),
            [self._segmentation(row) for row in range(rows.start, rows.stop)],
            self.file,
        )

    def _segmentation(self, row: int) -> Segmentation:
        if row in self._runs:
            return self._runs[row]
        return self._texts[self._text[row]] if self._text[row] >= 0 else None


class _Texts:
    """Strings stored as one object, which needs less memory and is not copied in worker processes."""

    def __init__(self, texts: Sequence[bytes]) -> None:
        self._all = b"".join(texts)
        self._ends = np.cumsum([0, *map(len, texts)])

    def __getitem__(self, index: int) -> str:
        return self._all[self._ends[index] : self._ends[index + 1]].decode("ascii")


class _Table:
    """A list of records of the JSON file, by columns; errors include the index of the first invalid record."""

    def __init__(self, file: Path, name: str, records: Any) -> None:
        self.file, self._name, self.records = file, name, records
        if not isinstance(records, list):
            raise UserError(f"{file} is not in COCO's format: {name} is not a list")
        for index in (i for i, record in enumerate(records) if not isinstance(record, dict)):
            self._fail(index, "is not an object with named fields")

    def _fail(self, index: int, what: str) -> NoReturn:
        raise UserError(f"{self.file} is not in COCO's format: {self._name}[{index}] {what}")

    def column(self, field: str) -> list[Any]:
        """Return the values of a field of all records."""
        try:
            return [record[field] for record in self.records]
        except KeyError:
            wrong = next(i for i, record in enumerate(self.records) if field not in record)
            return self._fail(wrong, f"has no {field}")

    def integers(self, field: str, default: int | None = None) -> np.ndarray:
        """Return a field as (N,) int64; it is required if it has no default."""
        values = self.column(field) if default is None else [r.get(field, default) for r in self.records]
        found = np.array(values) if values else np.zeros(0, np.int64)
        if found.ndim == 1 and found.dtype.kind in "iub":
            return found.astype(np.int64)
        wrong = next((i for i, value in enumerate(values) if not isinstance(value, int)), 0)
        return self._fail(wrong, f"has a {field} that is not an integer")

    def floats(self, field: str) -> np.ndarray:
        """Return a field as (N,) float64, NaN where it is missing."""
        values = [record.get(field) for record in self.records]
        try:
            return np.array(values, np.float64).reshape(len(values))
        except (TypeError, ValueError):
            wrong = next(i for i, v in enumerate(values) if v is not None and not isinstance(v, (int, float)))
            return self._fail(wrong, f"has a {field} that is not a number")

    def boxes(self) -> np.ndarray:
        """Return the boxes as (N, 4) float64: left, top, width and height."""
        values = self.column("bbox")
        try:
            return np.array(values, np.float64).reshape(len(values), 4)
        except (TypeError, ValueError):
            wrong = next(i for i, value in enumerate(values) if not _is_box(value))
            return self._fail(wrong, "has a bbox that is not four numbers: left, top, width and height")

    def unique_ids(self) -> np.ndarray:
        """Return the ids as (N,) int64, after a check that they are unique and not negative."""
        ids = self.integers("id")
        order = np.argsort(ids, kind="stable")
        for index in order[1:][ids[order][1:] == ids[order][:-1]][:1]:
            self._fail(index, f"has the id {ids[index]}, which another record has already")
        for index in np.flatnonzero(ids < 0)[:1]:
            self._fail(index, f"has a negative id, {ids[index]}")
        return ids

    def indices(self, field: str, ids: np.ndarray, what: str) -> np.ndarray:
        """Return as (N,) int64 the index in `ids` of each value of a field.

        Args:
            field: name of the field, which contains ids.
            ids: ids to look up, in any order.
            what: what the ids stand for, for error messages.
        """
        order = np.argsort(ids)
        wanted = self.integers(field)
        found = order[np.searchsorted(ids[order], wanted).clip(max=len(ids) - 1)]
        for index in np.flatnonzero(ids[found] != wanted)[:1]:
            self._fail(index, f"has {field} {wanted[index]}, but no {what} has this id")
        return found


def _is_box(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 4 and all(v is None or isinstance(v, (int, float)) for v in value)


def _read(file: Path, masks: bool) -> tuple[Mapping[str, Any], _Texts]:
    """Return the content of a JSON file with a number for each list of polygons, and these lists as text."""
    texts: list[bytes] = []

    def set_aside(match: re.Match[bytes]) -> bytes:
        if not masks:
            return b'"segmentation":null'
        texts.append(match[1])
        return b'"segmentation":%d' % (len(texts) - 1)

    try:
        with _uncollected():
            # Polygons are most of the file, and are used one at a time, if at all: as text they take a quarter of the
            # memory, and no time to parse.
            content = json.loads(_POLYGONS.sub(set_aside, file.read_bytes()))
    except OSError as error:
        raise UserError(f"{file} cannot be read: {error.strerror or error}") from error
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        reason = error.msg if isinstance(error, json.JSONDecodeError) else first_line(error)
        raise UserError(f"{file} is not valid JSON ({reason}): download or write it again") from error
    parts = ("images", "annotations", "categories")
    if missing := [name for name in parts if not isinstance(content, dict) or name not in content]:
        raise UserError(f"{file} is not in COCO's format for instances: it has no {' and no '.join(missing)}")
    return content, _Texts(texts)


@contextmanager
def _uncollected() -> Iterator[None]:
    """Pause garbage collection, which would scan millions of new objects again and again without a result."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _classes(
    file: Path, categories: Any, annotations: _Table, classes: Sequence[str] | None
) -> tuple[tuple[str, ...], tuple[int, ...], np.ndarray]:
    """Return the class names, the category id of each, and the class of each annotation as (N,) int64."""
    table = _Table(file, "categories", categories)
    ids = table.unique_ids()
    names = np.array([str(name) for name in table.column("name")], object)
    if not len(ids):
        raise UserError(f"{file} lists no categories")
    category = annotations.indices("category_id", ids, "category")
    used = np.zeros(len(ids), bool)
    used[category] = True
    kept = used | ~_spurious(table.records, names)
    order = np.argsort(ids)
    order = order[kept[order]]
    own = names[order].tolist()
    if doubled := sorted({name for name in own if own.count(name) > 1}):
        raise UserError(f"{file} has several categories with the same name ({_listed(doubled)}): rename them")
    known, indices = align_classes(own, classes, str(file))
    label = np.full(len(ids), -1)
    label[order] = indices
    by_class = dict(zip(indices, ids[order].tolist(), strict=True))
    return known, tuple(by_class.get(i, -1) for i in range(len(known))), label[category]


def _spurious(records: Sequence[Mapping[str, Any]], names: np.ndarray) -> np.ndarray:
    """Return as (N,) bool which categories are not classes, unless they have objects.

    Roboflow lists the dataset itself as a category, the supercategory of all others, sometimes under the name of one of
    them.
    """
    above = [{r.get("supercategory") for j, r in enumerate(records) if j != i} for i in range(len(records))]
    flags = [r.get("supercategory") == "none" and names[i] in above[i] for i, r in enumerate(records)]
    return np.array(flags, bool)


def _clipped(boxes: np.ndarray, sizes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return boxes clipped to the images, (N, 4) float32 xyxy, and as (N,) bool whether they have an area."""
    corners = np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], 1)
    inside = np.clip(corners, 0, sizes[:, [1, 0, 1, 0]]).astype(np.float32)
    return inside, (inside[:, 2:] > inside[:, :2]).all(1)  # False for NaN


def _segmentations(
    annotations: _Table, order: np.ndarray, sizes: np.ndarray, wanted: bool
) -> tuple[np.ndarray, dict[int, Any]]:
    """Return for annotations in `order` the index of the polygon text or -1, and other segmentations by row."""
    found = [record.get("segmentation") if wanted else None for record in annotations.records]
    texts = np.array([value if type(value) is int else -1 for value in found], np.int64)[order]
    others: dict[int, Segmentation] = {}
    for row in np.flatnonzero(texts < 0).tolist():
        value = found[order[row]]
        if isinstance(value, list):  # which contains something other than numbers
            others[row] = json.dumps(value)
        elif value:
            try:
                others[row] = _run_lengths(value, *sizes[row].tolist())
            except (TypeError, ValueError, KeyError, OverflowError) as error:
                raise UserError(
                    f"{annotations.file}: the segmentation of annotation {annotations.records[order[row]]['id']} is "
                    f"neither polygons nor RLE of the image's size ({error}); correct it"
                ) from error
    return texts, others


def _run_lengths(found: Mapping[str, Any], height: int, width: int) -> bytes:
    """Return the compressed RLE counts of a mask, after cheap checks."""
    if list(found["size"]) != [height, width]:
        raise ValueError(f"its size is {found['size']}, but the image has height and width {[height, width]}")
    counts = found["counts"]
    if isinstance(counts, str):
        return counts.encode("ascii")
    if min(counts, default=0) < 0 or sum(counts) != height * width:
        raise ValueError(f"its counts add up to {sum(counts)} pixels, but the image has {height * width}")
    compressed: bytes = rle_tools.frPyObjects({"size": [height, width], "counts": counts}, height, width)["counts"]
    return compressed


def _located(root: Path, split: Split) -> tuple[Path, list[Path]]:
    """Return the annotation file of a split, and the folders to search for its images, the most likely first."""
    folders = _folders(root)
    images = _folders(folders["images"]) if "images" in folders else {}
    for name in SPLIT_NAMES[split]:
        tags = _tags(folders.get("annotations"), name)
        for tag in sorted(tags, key=lambda tag: (tag in folders or tag in images, tag), reverse=True)[:1]:
            places = [place.get(each) for each in (tag, *SPLIT_NAMES[split]) for place in (images, folders)]
            return tags[tag], [*filter(None, places), folders.get("images", root), root]
        if name in folders and (file := folders[name] / _BESIDE).is_file():
            return file, [folders[name], root]
    found = sorted(file for place in (root, folders.get("annotations", root)) for file in place.glob("*.json"))
    only = f", only {_listed(file.name for file in dict.fromkeys(found))}" if found else ""
    raise UserError(
        f"{root} has no COCO annotations for the {SPLIT_TITLES[split]} split ({listed_names(split)}){only}: expected "
        f"{_layouts(SPLIT_NAMES[split][0])}"
    )


def _layouts(name: str) -> str:
    """Return the layouts of a split with this name, as text."""
    return (
        f"annotations/instances_{name}.json with images in images/{name} or {name}, or {name}/{_BESIDE} beside its "
        "images"
    )


def _folders(root: Path) -> dict[str, Path]:
    """Return the subfolders of a folder, by their names in lower case."""
    return {path.name.lower(): path for path in sorted(root.iterdir(), reverse=True) if path.is_dir()}


def _tags(folder: Path | None, name: str) -> dict[str, Path]:
    """Return the annotation files of a split in a folder, by split name and year, such as "train2017"."""
    pattern = re.compile(rf"(?:instances_)?({name}(?:\d{{4}})?)\.json", re.IGNORECASE)
    files = sorted(folder.glob("*.json")) if folder else []
    return {match[1].lower(): file for file in files if (match := pattern.fullmatch(file.name))}


def _folder_of(file: Path, names: Sequence[str], folders: Sequence[Path]) -> str:
    """Return the first of some folders that contains all images, given by paths relative to it.

    Raises:
        UserError: no folder contains all images.
    """
    best, fewest = "", list(names)
    for folder in map(str, dict.fromkeys(folders)):
        missing = _missing(folder, names)
        if not missing:
            return folder
        if not best or len(missing) < len(fewest):
            best, fewest = folder, missing
    raise UserError(
        f"{len(fewest)} of the {len(names)} images that {file} lists are not in {best} ({_listed(fewest)}): put them "
        "there, or remove them from the file"
    )


def _missing(folder: str, names: Sequence[str]) -> list[str]:
    """Return the names of missing files, from folder listings: a look-up per file is slow on network storage."""
    present: dict[str, set[str]] = {}
    missing = []
    for name in names:
        place, base = os.path.split(os.path.join(folder, name))  # noqa: PTH118
        if place not in present:
            present[place] = set(os.listdir(place)) if os.path.isdir(place) else set()  # noqa: PTH112, PTH208
        if base not in present[place]:
            missing.append(name)
    return missing


def _listed(items: Iterable[Any]) -> str:
    """Return up to ten items as text."""
    items = list(items)
    return ", ".join(map(str, items[:10])) + (", ..." if len(items) > 10 else "")
