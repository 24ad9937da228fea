"""Images with objects in COCO's format: which files make a split, and what their json says of each image."""

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
from fastvit.data.split_names import SPLIT_NAMES, Split
from fastvit.errors import UserError, first_line
from fastvit.files import user_path

_BESIDE = "_annotations.coco.json"
_LAYOUTS = (
    "annotations/instances_train2017.json with images in train2017 or images/train2017, "
    "annotations/instances_train.json with images in images/train or train, "
    f"or train/{_BESIDE} beside its images; the same with val"
)
# In a string the quotes would have backslashes, so that this is the key; the list has nothing but numbers in it.
_POLYGONS = re.compile(rb'"segmentation"\s*:\s*(\[[-+.\deE,\s\[\]]*\])')
# What turns an upright image back to how it is stored, by its EXIF orientation; the others keep width and height.
_STORED = {
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}

# JSON of an object's polygons, the counts of COCO's compressed run lengths, or nothing.
Segmentation = str | bytes | None


@dataclass(frozen=True, eq=False)
class Objects:
    """The objects of an image.

    Attributes:
        boxes: (N, 4) float32, left, top, right and bottom in pixels of the image, inside it and with an area.
        labels: (N,) int64, index of the class.
        areas: (N,) float64, pixels of the object as the annotation says, those of the box where it does not.
        crowd: (N,) bool, whether it stands for many objects that were not told apart.
        ids: (N,) int64, of the annotations.
        size: height and width of the image in pixels.
        segmentations: of each object, as in the annotation.
        file: where they were read.
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
        """Those for which `keep`, (N,) bool, is true."""
        columns = {name: getattr(self, name)[keep] for name in ("boxes", "labels", "areas", "crowd", "ids")}
        return replace(self, **columns, segmentations=[self.segmentations[i] for i in np.flatnonzero(keep).tolist()])

    def masks(self) -> np.ndarray:
        """(N, H, W) uint8, 1 where the object is.

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
                f"{self.file}: the segmentation of annotation {self.ids[broken]} is damaged ({error}); correct it"
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
                    f"{self.file}: the segmentation of annotation {self.ids[index]} is no list of polygons, each a "
                    "list of x and y in turn; correct it"
                ) from error
        if not polygons:
            raise UserError(
                f"{self.file}: annotation {self.ids[index]} has no segmentation, which masks need; "
                "add it, or train a detector of boxes alone"
            )
        merged: dict[str, Any] = rle_tools.merge(rle_tools.frPyObjects(polygons, *self.size))
        return merged


def _polygons(text: str) -> list[list[float]]:
    """Those of at least three corners; fewer enclose nothing."""
    found = json.loads(text)
    polygons = [found] if found and not isinstance(found[0], list) else found
    for polygon in polygons:
        if len(polygon) % 2 or not np.isfinite(np.array(polygon, np.float64)).all():
            raise ValueError("a coordinate is missing or no number")
    return [polygon for polygon in polygons if len(polygon) >= 6]


def _decodes(rle: dict[str, Any]) -> bool:
    try:
        rle_tools.decode(rle)
    except ValueError:
        return False
    return True


def open_coco(source: str | Path, split: Split, classes: Sequence[str] | None = None, masks: bool = True) -> CocoImages:
    """The images of one split of a folder in COCO's layout, a generic one, or Roboflow's.

    Args:
        source: folder with annotations/instances_train2017.json and the images in train2017 or images/train2017; with
            annotations/instances_train.json and the images in images/train or train; or with
            train/_annotations.coco.json beside its images. The validation part is called val, valid, validation or
            test; the first of these is taken, and of several years the last whose images are there.
        split: "train", or "test" for the validation part.
        classes: names that the labels are to follow, in this order (those of a model); by default the data's own, in
            the order of the categories' ids.
        masks: keep the segmentations, which take most of the memory.

    Raises:
        UserError: there is no such data, as `CocoImages` has it.
    """
    root = user_path(source)
    if not root.is_dir():
        raise UserError(f"there is no folder {root.absolute()}; give a folder with {_LAYOUTS}")
    file, folders = _located(root, split)
    return CocoImages(file, folders, classes, masks)


class CocoImages:
    """The images that a json in COCO's format lists, those without any object too.

    Boxes are clipped to the image. Objects whose box has no area there, or coordinates that are no numbers, are left
    out, with a warning.

    Args:
        file: the json.
        folders: where the images may be, the likeliest first.
        classes, masks: as in `open_coco`.

    Attributes:
        classes: names.
        categories: for each class, the category's id in the json; -1 for one that the json lacks.
        ids: (n,) int64, id of each image.
        sizes: (n, 2) int64, height and width of each image in pixels.
        dropped: ids of the annotations that are left out.

    Raises:
        UserError: the json is damaged or contradicts itself, classes are unknown to the model, or image files are
            missing, all of which are counted.
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
        image = annotations.places("image_id", self.ids, "image")
        self.classes, self.categories, label = _classes(file, content["categories"], annotations, classes)
        boxes, shown = _clipped(annotations.boxes(), self.sizes[image])
        ids = annotations.unique_ids()
        self.dropped = tuple(ids[~shown].tolist())
        # A stable order keeps the annotations of an image as they are in the file.
        order = np.argsort(image, kind="stable")
        order = order[shown[order]]
        self._ends = np.searchsorted(image[order], np.arange(len(self.ids) + 1))
        self._boxes, self._labels, self._ids = boxes[order], label[order], ids[order]
        self._crowd = annotations.integers("iscrowd", 0)[order] != 0
        areas = annotations.numbers("area")[order]
        sides = self._boxes[:, 2:] - self._boxes[:, :2]
        self._areas = np.where(np.isnan(areas), sides.prod(1), areas)
        self._text, self._runs = _segmentations(annotations, order, self.sizes[image[order]], masks)
        self._folder = _folder_of(file, names, folders)
        self._names = names
        if self.dropped:
            warnings.warn(
                f"{file}: {len(self.dropped)} objects are left out, as their boxes have no area inside the image "
                f"(annotations {_listed(self.dropped)})",
                stacklevel=3,
            )

    def __len__(self) -> int:
        return len(self._names)

    def name(self, index: int) -> str:
        return os.path.join(self._folder, self._names[index])  # noqa: PTH118  # a Path for each image costs more

    def image(self, index: int) -> Image.Image:
        """The image as its boxes have it.

        Raises:
            UnreadableImageError: it cannot be decoded.
            UserError: it is not of the size that the json says.
        """
        path = self.name(index)
        image = read_image(path)
        height, width = self.sizes[index].tolist()
        if image.size == (width, height):
            return image
        # The size tells whether the boxes are of the image as a viewer shows it, or as it is stored.
        with Image.open(path) as stored:
            turn = _STORED.get(stored.getexif().get(ExifTags.Base.Orientation, 1))
            if turn is not None and stored.size == (width, height):
                return image.transpose(turn)
        raise UserError(
            f"{path} is {image.width}x{image.height} pixels large, but {self.file} says {width}x{height} "
            f"(image {self.ids[index]}): correct its width and height, or take the image that it was written for"
        )

    def targets(self, index: int) -> Objects:
        """The objects of an image."""
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
    """Strings in one piece, which takes less memory, and of which processes that read them make no copies."""

    def __init__(self, texts: Sequence[bytes]) -> None:
        self._all = b"".join(texts)
        self._ends = np.cumsum([0, *map(len, texts)])

    def __getitem__(self, index: int) -> str:
        return self._all[self._ends[index] : self._ends[index + 1]].decode("ascii")


class _Table:
    """A list of records of the json, by columns; an error names the first record that is wrong."""

    def __init__(self, file: Path, name: str, records: Any) -> None:
        self.file, self._name, self.records = file, name, records
        if not isinstance(records, list):
            raise UserError(f"{file} is not in COCO's format: {name} is no list")
        for index in (i for i, record in enumerate(records) if not isinstance(record, dict)):
            self._fail(index, "is no object with named fields")

    def _fail(self, index: int, what: str) -> NoReturn:
        raise UserError(f"{self.file} is not in COCO's format: {self._name}[{index}] {what}")

    def column(self, field: str) -> list[Any]:
        """A field of every record."""
        try:
            return [record[field] for record in self.records]
        except KeyError:
            wrong = next(i for i, record in enumerate(self.records) if field not in record)
            return self._fail(wrong, f"has no {field}")

    def integers(self, field: str, default: int | None = None) -> np.ndarray:
        """(N,) int64 of a field, which must be there if it has no default."""
        values = self.column(field) if default is None else [r.get(field, default) for r in self.records]
        found = np.array(values) if values else np.zeros(0, np.int64)
        if found.ndim == 1 and found.dtype.kind in "iub":
            return found.astype(np.int64)
        wrong = next((i for i, value in enumerate(values) if not isinstance(value, int)), 0)
        return self._fail(wrong, f"has a {field} that is no whole number")

    def numbers(self, field: str) -> np.ndarray:
        """(N,) float64 of a field, NaN where it is not there."""
        values = [record.get(field) for record in self.records]
        try:
            return np.array(values, np.float64).reshape(len(values))
        except (TypeError, ValueError):
            wrong = next(i for i, v in enumerate(values) if v is not None and not isinstance(v, (int, float)))
            return self._fail(wrong, f"has a {field} that is no number")

    def boxes(self) -> np.ndarray:
        """(N, 4) float64: left, top, width and height."""
        values = self.column("bbox")
        try:
            return np.array(values, np.float64).reshape(len(values), 4)
        except (TypeError, ValueError):
            wrong = next(i for i, value in enumerate(values) if not _is_box(value))
            return self._fail(wrong, "has a bbox that is not four numbers: left, top, width and height")

    def unique_ids(self) -> np.ndarray:
        """(N,) int64: the ids, which are all different and not negative."""
        ids = self.integers("id")
        order = np.argsort(ids, kind="stable")
        for index in order[1:][ids[order][1:] == ids[order][:-1]][:1]:
            self._fail(index, f"has the id {ids[index]}, which another one has")
        for index in np.flatnonzero(ids < 0)[:1]:
            self._fail(index, f"has a negative id, {ids[index]}")
        return ids

    def places(self, field: str, ids: np.ndarray, what: str) -> np.ndarray:
        """(N,) int64: where among some ids, in any order, those of a field are."""
        order = np.argsort(ids)
        wanted = self.integers(field)
        found = order[np.searchsorted(ids[order], wanted).clip(max=len(ids) - 1)]
        for index in np.flatnonzero(ids[found] != wanted)[:1]:
            self._fail(index, f"has {field} {wanted[index]}, but there is no such {what}")
        return found


def _is_box(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 4 and all(v is None or isinstance(v, (int, float)) for v in value)


def _read(file: Path, masks: bool) -> tuple[Mapping[str, Any], _Texts]:
    """The content of a json, and the lists of polygons, whose places in it hold a number instead."""
    texts: list[bytes] = []

    def set_aside(match: re.Match[bytes]) -> bytes:
        if not masks:
            return b'"segmentation":null'
        texts.append(match[1])
        return b'"segmentation":%d' % (len(texts) - 1)

    try:
        with _uncollected():
            # Most of the file is these, and most of them are looked at one at a time, if at all: as text they take a
            # quarter of the memory, and none of the time.
            content = json.loads(_POLYGONS.sub(set_aside, file.read_bytes()))
    except OSError as error:
        raise UserError(f"{file} cannot be read: {error.strerror or error}") from error
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        reason = error.msg if isinstance(error, json.JSONDecodeError) else first_line(error)
        raise UserError(f"{file} is no JSON, or damaged ({reason}): get or write it anew") from error
    parts = ("images", "annotations", "categories")
    if missing := [name for name in parts if not isinstance(content, dict) or name not in content]:
        raise UserError(f"{file} is not in COCO's format of instances: it has no {' and no '.join(missing)}")
    return content, _Texts(texts)


@contextmanager
def _uncollected() -> Iterator[None]:
    """Without garbage collection, which looks through millions of new objects again and again and finds nothing."""
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
    """Names of the classes, the category's id of each, and (N,) int64 the class of each annotation."""
    table = _Table(file, "categories", categories)
    ids = table.unique_ids()
    names = np.array([str(name) for name in table.column("name")], object)
    if not len(ids):
        raise UserError(f"{file} lists no categories")
    category = annotations.places("category_id", ids, "category")
    used = np.zeros(len(ids), bool)
    used[category] = True
    kept = used | ~_spurious(table.records, names)
    order = np.argsort(ids)
    order = order[kept[order]]
    own = names[order].tolist()
    if doubled := sorted({name for name in own if own.count(name) > 1}):
        raise UserError(f"{file} has several categories of one name ({_listed(doubled)}): give each its own")
    known, indices = align_classes(own, classes, str(file))
    label = np.full(len(ids), -1)
    label[order] = indices
    by_class = dict(zip(indices, ids[order].tolist(), strict=True))
    return known, tuple(by_class.get(i, -1) for i in range(len(known))), label[category]


def _spurious(records: Sequence[Mapping[str, Any]], names: np.ndarray) -> np.ndarray:
    """(N,) bool: categories that are no classes, unless they have objects.

    Roboflow lists the whole dataset as a category, above all others, sometimes by the name of one of them.
    """
    above = [{r.get("supercategory") for j, r in enumerate(records) if j != i} for i in range(len(records))]
    flags = [r.get("supercategory") == "none" and names[i] in above[i] for i, r in enumerate(records)]
    return np.array(flags, bool)


def _clipped(boxes: np.ndarray, sizes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(N, 4) float32 left, top, right and bottom inside images, and (N,) bool whether an area is left."""
    corners = np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], 1)
    inside = np.clip(corners, 0, sizes[:, [1, 0, 1, 0]]).astype(np.float32)
    return inside, (inside[:, 2:] > inside[:, :2]).all(1)  # which nothing is that is not a number


def _segmentations(
    annotations: _Table, order: np.ndarray, sizes: np.ndarray, wanted: bool
) -> tuple[np.ndarray, dict[int, Any]]:
    """Of annotations in some order: (N,) int64 number of the text, or -1; the other segmentations by their row."""
    found = [record.get("segmentation") if wanted else None for record in annotations.records]
    texts = np.array([value if type(value) is int else -1 for value in found], np.int64)[order]
    others: dict[int, Segmentation] = {}
    for row in np.flatnonzero(texts < 0).tolist():
        value = found[order[row]]
        if isinstance(value, list):  # with something in it that is no number
            others[row] = json.dumps(value)
        elif value:
            try:
                others[row] = _run_lengths(value, *sizes[row].tolist())
            except (TypeError, ValueError, KeyError, OverflowError) as error:
                raise UserError(
                    f"{annotations.file}: the segmentation of annotation {annotations.records[order[row]]['id']} is "
                    f"neither polygons nor run lengths of its image ({error}); correct it"
                ) from error
    return texts, others


def _run_lengths(found: Mapping[str, Any], height: int, width: int) -> bytes:
    """COCO's compressed counts of a mask, checked as far as it costs little."""
    if list(found["size"]) != [height, width]:
        raise ValueError(f"a size of {found['size']} where height and width are {[height, width]}")
    counts = found["counts"]
    if isinstance(counts, str):
        return counts.encode("ascii")
    if min(counts, default=0) < 0 or sum(counts) != height * width:
        raise ValueError(f"counts of {sum(counts)} pixels in all where it has {height * width}")
    compressed: bytes = rle_tools.frPyObjects({"size": [height, width], "counts": counts}, height, width)["counts"]
    return compressed


def _located(root: Path, split: Split) -> tuple[Path, list[Path]]:
    """The json of a split, and the folders in which its images may be, the likeliest first."""
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
    raise UserError(
        f"{root} has no COCO annotations of a split {' or '.join(SPLIT_NAMES[split][: 1 if split == 'train' else 4])} "
        f"({f'only {_listed(file.name for file in dict.fromkeys(found))}' if found else 'no json at all'}); it needs "
        f"{_LAYOUTS}"
    )


def _folders(root: Path) -> dict[str, Path]:
    """The folders in one, by their names in lower case."""
    return {path.name.lower(): path for path in sorted(root.iterdir(), reverse=True) if path.is_dir()}


def _tags(folder: Path | None, name: str) -> dict[str, Path]:
    """The jsons of a split's instances in a folder, by the name of the split with the year, if it has one."""
    pattern = re.compile(rf"(?:instances_)?({name}(?:\d{{4}})?)\.json", re.IGNORECASE)
    files = sorted(folder.glob("*.json")) if folder else []
    return {match[1].lower(): file for file in files if (match := pattern.fullmatch(file.name))}


def _folder_of(file: Path, names: Sequence[str], folders: Sequence[Path]) -> str:
    """The first of some folders that has all images, by their names from there on.

    Raises:
        UserError: none has.
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
        "there, or take them out of the json"
    )


def _missing(folder: str, names: Sequence[str]) -> list[str]:
    """Which files are not there; looks at folders, not at each file, which takes long on a network."""
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
    """The first ten."""
    items = list(items)
    return ", ".join(map(str, items[:10])) + (", ..." if len(items) > 10 else "")
