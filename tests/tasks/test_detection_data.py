"""COCO's format read, and what a detector is trained and evaluated on."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools import mask as rle_tools
from pycocotools.coco import COCO

from fastvit.data.module import evaluation_loader
from fastvit.data.pixels import eval_array, fitted_size
from fastvit.data.sampling import PADDING, EvaluationShare, SampleIndex, TrainBatches
from fastvit.errors import UserError
from fastvit.model.preprocessing import Preprocessing
from fastvit.tasks.detection.coco import CocoImages, open_coco
from fastvit.tasks.detection.data import DetectionData, DetectionSamples, collate, open_for_run
from fastvit.tasks.detection.metrics import UNCOUNTED
from fastvit.tasks.detection.options import DetectionOptions, DetectorConfig
from fastvit.tasks.detection.sampling import GroupedBatches
from fastvit.tasks.detection.transforms import TrainTransform

# Of pycocotools' own arrays.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation")

HEIGHT, WIDTH = 37, 53
FIT = Preprocessing(size=(48, 80), resize="resize_shorter")


def compressed(mask: np.ndarray) -> dict[str, Any]:
    rle = rle_tools.encode(np.asfortranarray(mask, np.uint8))
    return {"size": list(rle["size"]), "counts": rle["counts"].decode()}


def disc(height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    y, x = np.mgrid[:height, :width]
    return ((x - 20) ** 2 + (y - 15) ** 2 < 81).astype(np.uint8)


def annotation(number: int, image: int, category: int, box: list[float], **others: Any) -> dict[str, Any]:
    area = {"area": box[2] * box[3]}
    return {"id": number, "image_id": image, "category_id": category, "bbox": box, "iscrowd": 0, **area, **others}


def content() -> dict[str, Any]:
    """Three images, the last without objects; categories out of order; every kind of segmentation."""
    row = np.zeros((HEIGHT, WIDTH), np.uint8)
    row[30:, 5:50] = 1
    flat = row.ravel(order="F")
    edges = np.flatnonzero(np.diff(flat, prepend=0))
    counts = np.diff(edges, prepend=0, append=flat.size).tolist()
    two_parts = [[1.5, 2, 11, 2.2, 11, 12.9, 1.5, 13], [20, 20, 30, 20.5, 24, 29]]
    return {
        "images": [
            {"id": 7, "file_name": "b.png", "height": HEIGHT, "width": WIDTH},
            {"id": 3, "file_name": "a.png", "height": WIDTH, "width": HEIGHT},
            {"id": 9, "file_name": "c.png", "height": HEIGHT, "width": WIDTH},
        ],
        "annotations": [
            annotation(11, 7, 5, [1.5, 2, 28.5, 27], area=140.5, segmentation=two_parts),
            annotation(4, 3, 2, [2, 3, 10, 20], segmentation=[[2, 3, 12, 3, 12, 23, 2, 23]]),
            annotation(12, 7, 2, [12, 7, 17, 17], segmentation=compressed(disc())),
            annotation(2, 7, 5, [5, 30, 45, 7], iscrowd=1, segmentation={"size": [HEIGHT, WIDTH], "counts": counts}),
        ],
        "categories": [{"id": 5, "name": "dog"}, {"id": 2, "name": "cat"}],
    }


def write_images(folder: Path, images: list[dict[str, Any]]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for index, image in enumerate(images):
        size = image["width"], image["height"]
        Image.new("RGB", size, (10 * index, 0, 0)).save(folder / image["file_name"])


def write(root: Path, file: str, folder: str, data: dict[str, Any] | None = None) -> Path:
    data = data or content()
    write_images(root / folder, data["images"])
    (root / file).parent.mkdir(parents=True, exist_ok=True)
    (root / file).write_text(json.dumps(data))
    return root


def make(root: Path, data: dict[str, Any] | None = None) -> Path:
    """The generic layout, with the same in both splits."""
    write(root, "annotations/instances_val.json", "images/val", data)
    return write(root, "annotations/instances_train.json", "images/train", data)


@pytest.mark.parametrize(
    ("file", "folder", "split"),
    [
        ("annotations/instances_train2017.json", "train2017", "train"),
        ("annotations/instances_val2017.json", "images/val2017", "test"),
        ("annotations/instances_train.json", "images/train", "train"),
        ("annotations/instances_validation.json", "validation", "test"),
        ("annotations/instances_val.json", "images/valid", "test"),
        ("annotations/instances_test.json", "images", "test"),
        ("train/_annotations.coco.json", "train", "train"),
        ("valid/_annotations.coco.json", "valid", "test"),
    ],
)
def test_layouts(tmp_path: Path, file: str, folder: str, split: Any) -> None:
    images = open_coco(write(tmp_path, file, folder), split)
    assert images.file == tmp_path / file
    assert [Path(images.name(i)) for i in range(3)] == [
        tmp_path / folder / name for name in ("b.png", "a.png", "c.png")
    ]
    assert images.image(1).getpixel((0, 0)) == (10, 0, 0)
    assert (images.ids.tolist(), images.sizes[1].tolist()) == ([7, 3, 9], [WIDTH, HEIGHT])


def test_of_several_years_the_last_whose_images_are_there(tmp_path: Path) -> None:
    write(tmp_path, "annotations/instances_train2014.json", "train2014")
    (tmp_path / "annotations" / "instances_train2017.json").write_text("{}")
    assert open_coco(tmp_path, "train").file.name == "instances_train2014.json"
    write(tmp_path, "annotations/instances_train2017.json", "train2017")
    assert open_coco(tmp_path, "train").file.name == "instances_train2017.json"


def test_without_a_split_the_layouts_are_told(tmp_path: Path) -> None:
    root = write(tmp_path, "annotations/instances.json", "images")
    with pytest.raises(
        UserError, match=r"training split .*, only instances.json: expected annotations/instances_train"
    ):
        open_coco(root, "train")
    with pytest.raises(UserError, match="does not exist"):
        open_coco(tmp_path / "none", "train")


def test_masks_are_those_of_pycocotools(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images = open_coco(make(tmp_path), "train")
    official = COCO(str(images.file))
    capsys.readouterr()
    for index, image in enumerate(images.ids.tolist()):
        objects = images.targets(index)
        theirs = official.loadAnns(official.getAnnIds([image]))
        assert objects.ids.tolist() == [one["id"] for one in theirs]
        assert objects.masks().shape == (len(theirs), *images.sizes[index])
        for mask, one in zip(objects.masks(), theirs, strict=True):
            np.testing.assert_array_equal(mask, official.annToMask(one))
    assert capsys.readouterr().out == ""
    objects = images.targets(0)
    assert objects.areas.tolist() == [140.5, 289, 315]
    assert objects.crowd.tolist() == [False, False, True]
    np.testing.assert_array_equal(objects.where(objects.crowd).masks(), objects.masks()[2:])
    assert (objects.boxes.dtype, objects.masks().dtype) == (np.float32, np.uint8)


def test_labels_are_in_the_order_of_the_ids_or_the_models(tmp_path: Path) -> None:
    root = make(tmp_path)
    images = open_coco(root, "train")
    assert (images.classes, images.categories) == (("cat", "dog"), (2, 5))
    assert images.targets(0).labels.tolist() == [1, 0, 1]
    known = open_coco(root, "train", ("dog", "ape", "cat"))
    assert (known.classes, known.categories) == (("dog", "ape", "cat"), (5, -1, 2))
    assert known.targets(0).labels.tolist() == [0, 2, 0]
    with pytest.raises(UserError, match="does not have"):
        open_coco(root, "train", ("dog", "ape"))


def test_boxes_are_clipped_and_empty_ones_dropped_with_a_count(tmp_path: Path) -> None:
    data = content()
    data["annotations"] = [
        annotation(1, 7, 2, [-4, -4, 10, 10]),
        annotation(2, 7, 2, [WIDTH - 1, HEIGHT - 1, 1, 1]),
        annotation(3, 7, 2, [5, 5, 0.25, 3], area=None),
        annotation(4, 7, 2, [5, 5, 0, 3]),
        annotation(5, 7, 2, [WIDTH, 0, 5, 5]),
        annotation(6, 7, 2, [10, 10, -5, 5]),
        annotation(7, 7, 2, [float("nan"), 10, 5, 5]),
        annotation(8, 3, 2, [-30, 0, 20, 5]),
        annotation(9, 3, 2, [0, 0, HEIGHT, WIDTH]),
    ]
    with pytest.warns(UserWarning, match=r"instances_train.json: 5 objects are dropped.*annotations 4, 5, 6, 7, 8\)"):
        images = open_coco(make(tmp_path, data), "train")
    assert images.dropped == (4, 5, 6, 7, 8)
    objects = images.targets(0)
    assert objects.boxes.tolist() == [[0, 0, 6, 6], [WIDTH - 1, HEIGHT - 1, WIDTH, HEIGHT], [5, 5, 5.25, 8]]
    assert objects.areas.tolist() == [100, 1, 0.75], "the box's where the annotation has none"
    assert images.targets(1).boxes.tolist() == [[0, 0, HEIGHT, WIDTH]]
    assert len(images.targets(2)) == 0
    assert images.targets(2).masks().shape == (0, HEIGHT, WIDTH)


def remove(*path: Any) -> Callable[[dict[str, Any]], None]:
    def change(data: Any) -> None:
        for step in path[:-1]:
            data = data[step]
        del data[path[-1]]

    return change


def put(*path: Any) -> Callable[[dict[str, Any]], None]:
    def change(data: Any) -> None:
        for step in path[:-2]:
            data = data[step]
        data[path[-2]] = path[-1]

    return change


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (remove("annotations"), "it has no annotations"),
        (remove("images", 1, "height"), r"images\[1\] has no height"),
        (remove("annotations", 2, "bbox"), r"annotations\[2\] has no bbox"),
        (put("annotations", 1, "bbox", [1, 2, 3]), r"annotations\[1\] has a bbox that is not four numbers"),
        (put("annotations", 1, "bbox", [1, 2, 3, "wide"]), r"annotations\[1\] has a bbox that is not four numbers"),
        (put("annotations", 3, "image_id", 8), r"annotations\[3\] has image_id 8, but no image has this id"),
        (put("annotations", 0, "image_id", "7"), r"annotations\[0\] has a image_id that is not an integer"),
        (put("annotations", 0, "category_id", 1), r"annotations\[0\] has category_id 1, but no category has this id"),
        (put("annotations", 3, "id", 11), r"annotations\[3\] has the id 11, which another record has already"),
        (put("annotations", 3, "area", "big"), r"annotations\[3\] has a area that is not a number"),
        (put("images", 2, "id", 7), r"images\[2\] has the id 7, which another record has already"),
        (put("images", 2, "id", -1), r"images\[2\] has a negative id"),
        (put("images", 0, "width", 0), "the size of image 7 is not positive"),
        (put("images", 0, 5), r"images\[0\] is not an object"),
        (put("images", {}), "images is not a list"),
        (put("images", []), "lists no images"),
        (put("categories", []), "lists no categories"),
        (put("categories", 1, "name", "dog"), "several categories with the same name .dog."),
        (put("annotations", 2, "segmentation", {"size": [2, 2], "counts": "04"}), "annotation 12 is neither polygons"),
        (put("annotations", 2, "segmentation", {"counts": "04"}), "annotation 12 is neither polygons"),
        (put("annotations", 3, "segmentation", "counts", [5, 6]), "annotation 2 is neither.*11 pixels"),
    ],
)
def test_what_is_wrong_with_a_json_is_named(tmp_path: Path, change: Callable[..., None], told: str) -> None:
    root = make(tmp_path)
    data = content()
    change(data)
    (root / "annotations" / "instances_train.json").write_text(json.dumps(data))
    with pytest.raises(UserError, match=f"instances_train.json.*{told}"):
        open_coco(root, "train")


@pytest.mark.parametrize("text", ["", "[]", '{"images": [', "\x89PNG", '{"images": 1}'])
def test_what_is_no_json_of_instances(tmp_path: Path, text: str) -> None:
    root = make(tmp_path)
    (root / "annotations" / "instances_train.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(UserError, match=r"instances_train.json is not (valid JSON|in COCO)"):
        open_coco(root, "train")


@pytest.mark.parametrize(
    ("segmentation", "told"),
    [
        ([[1, 2, 3, 4, 5]], "not a list of polygons"),
        ([[1, 2, 3, 4, 5, "six"]], "not a list of polygons"),
        ([[1, 2, 3, 4, 5, None]], "not a list of polygons"),
        ([[1, 2, 3, 4, 5, float("nan")]], "not a list of polygons"),
        ([[1, 2, 3, 4]], "has no segmentation"),
        ([], "has no segmentation"),
        (None, "has no segmentation"),
        ({"size": [HEIGHT, WIDTH], "counts": compressed(disc(80, 90))["counts"]}, "cannot be decoded"),
    ],
)
def test_what_cannot_be_a_mask_is_still_a_box(tmp_path: Path, segmentation: Any, told: str) -> None:
    data = content()
    data["annotations"][2]["segmentation"] = segmentation
    images = open_coco(make(tmp_path, data), "train")
    assert len(images.targets(0).boxes) == 3
    with pytest.raises(UserError, match=rf"instances_train.json:.*annotation 12.*{told}|annotation 12 {told}"):
        images.targets(0).masks()
    images.targets(1).masks()


def test_a_polygon_may_lie_in_no_list(tmp_path: Path) -> None:
    data = content()
    bare = data["annotations"][1]["segmentation"][0]
    masks = open_coco(make(tmp_path / "list", data), "train").targets(1).masks()
    data["annotations"][1]["segmentation"] = bare
    np.testing.assert_array_equal(open_coco(make(tmp_path / "bare", data), "train").targets(1).masks(), masks)


def test_all_missing_images_are_named_at_once(tmp_path: Path) -> None:
    root = make(tmp_path)
    for name in ("a.png", "c.png"):
        (root / "images" / "train" / name).unlink()
    with pytest.raises(UserError, match=r"2 of the 3 images .* are not in .*train \(a.png, c.png\): put them there"):
        open_coco(root, "train")


def test_images_in_folders_of_the_folder(tmp_path: Path) -> None:
    data = content()
    for image, place in zip(data["images"], ("x", "y", "x"), strict=True):
        image["file_name"] = f"{place}/{image['file_name']}"
    for place in ("x", "y"):
        (tmp_path / "images" / "train" / place).mkdir(parents=True)
    images = open_coco(write(tmp_path, "annotations/instances_train.json", "images/train", data), "train")
    assert Path(images.name(1)) == tmp_path / "images" / "train" / "y" / "a.png"


def test_the_datasets_name_is_no_class(tmp_path: Path) -> None:
    data = content()
    above = {"id": 0, "name": "cat", "supercategory": "none"}
    data["categories"] = [above, *({**one, "supercategory": "cat"} for one in data["categories"])]
    assert open_coco(write(tmp_path, "train/_annotations.coco.json", "train", data), "train").categories == (2, 5)


def test_sizes_say_whether_boxes_are_of_the_stored_image(tmp_path: Path) -> None:
    """A photograph on its side: as it is stored 53 wide, as it is seen 37."""
    root = make(tmp_path)
    pixels = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    pixels[:5, :5] = 200
    exif = Image.Exif()
    for orientation in (5, 6, 7, 8):
        exif[0x0112] = orientation
        for name in ("a.png", "b.png"):
            Image.fromarray(pixels).save(root / "images" / "train" / name, exif=exif)
        images = open_coco(root, "train")
        np.testing.assert_array_equal(np.asarray(images.image(0)), pixels)
        seen = np.asarray(images.image(1))
        assert (seen.shape, seen[:5, :5].any(), seen.sum()) == ((WIDTH, HEIGHT, 3), orientation == 5, pixels.sum())


def test_an_image_of_another_size_is_named(tmp_path: Path) -> None:
    root = make(tmp_path)
    for size in ((20, 20), (WIDTH, HEIGHT)):
        Image.new("RGB", size).save(root / "images" / "train" / "a.png")
        with pytest.raises(UserError, match=rf"a.png is {size[0]}x{size[1]} .*has 37x53 for it \(image 3\)"):
            open_coco(root, "train").image(1)


def samples(root: Path, masks: bool = True, preprocessing: Preprocessing = FIT, **options: Any) -> DetectionSamples:
    options.setdefault("size", FIT.size)
    return DetectionSamples(open_coco(root, "train"), preprocessing, masks, DetectionOptions(**options))


def test_an_evaluation_sample_keeps_the_original_coordinates(tmp_path: Path) -> None:
    root = make(tmp_path)
    Image.new("RGBA", (WIDTH, HEIGHT), (9, 9, 9, 255)).save(root / "images" / "train" / "b.png")
    image, target = samples(root)[0]
    assert (image.shape, image.dtype, int(image[0, 0, 0])) == ((3, 48, 69), torch.uint8, 9)
    assert target["boxes"][0].tolist() == [1.5, 2, 30, 29]
    assert {name: (tuple(part.shape), part.dtype) for name, part in target.items()} == {
        "boxes": ((3, 4), torch.float32),
        "labels": ((3,), torch.int64),
        "masks": ((3, HEIGHT, WIDTH), torch.uint8),
        "iscrowd": ((3,), torch.int64),
        "area": ((3,), torch.float32),
        "image_id": ((), torch.int64),
        "size": ((2,), torch.int64),
    }
    assert (target["image_id"], target["size"].tolist()) == (7, [HEIGHT, WIDTH])
    assert target["iscrowd"].tolist() == [0, 0, 1]


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("masks", [False, True])
def test_what_fills_up_has_the_form_of_the_others(tmp_path: Path, channels: int, masks: bool) -> None:
    data = samples(make(tmp_path), masks, FIT.for_channels(channels))
    (image, target), (blank, nothing) = data[2], data[PADDING]
    assert len(image) == len(blank) == channels
    assert nothing["image_id"] == UNCOUNTED
    assert not blank.any()
    for name, part in target.items():
        assert (part.dtype, part.shape[:1]) == (nothing[name].dtype, nothing[name].shape[:1]), name
    assert set(target) == set(nothing)
    assert ("masks" in target) == masks
    assert len(data[SampleIndex(0, 1)][0]) == channels


def test_training_leaves_crowds_out_and_follows_the_seed(tmp_path: Path) -> None:
    data = samples(make(tmp_path), scale_range=(0.5, 2.0), crop=40, photometric=0.5)
    first, again, other = (data[SampleIndex(0, seed)] for seed in (1, 1, 2))
    assert torch.equal(first[0], again[0])
    assert all(torch.equal(first[1][name], again[1][name]) for name in first[1])
    assert first[0].shape != other[0].shape or not torch.equal(first[0], other[0])
    assert set(first[1]) == {"boxes", "labels", "masks"}
    plain = samples(make(tmp_path))[SampleIndex(0, 0)][1]
    assert plain["labels"].tolist() == [1, 0]
    assert type(plain["boxes"]) is type(plain["masks"]) is torch.Tensor
    image, nothing = data[SampleIndex(2, 0)]
    assert image.ndim == 3
    assert (nothing["boxes"].shape, nothing["masks"].shape) == ((0, 4), (0, *image.shape[1:]))


def test_without_chance_training_images_are_those_of_evaluation(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    image = Image.fromarray(generator.integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8))
    objects = open_coco(make(tmp_path), "train").targets(0)
    target = {"boxes": torch.tensor(objects.boxes), "labels": torch.tensor(objects.labels)}
    for size in ((48, 80), (32, 36)):
        fit = Preprocessing(size=size, resize="resize_shorter")
        pixels, left = TrainTransform(DetectionOptions(size=size, hflip=0.0), fit)(image, target)
        expected = eval_array(image, fit).astype(int)
        assert pixels.shape == expected.shape == (3, *fitted_size((HEIGHT, WIDTH), fit))
        assert np.abs(pixels.numpy() - expected).max() <= 1, "torch and Pillow round differently"
        scale = torch.tensor([pixels.shape[2] / WIDTH, pixels.shape[1] / HEIGHT] * 2)
        torch.testing.assert_close(left["boxes"], target["boxes"] * scale)


@pytest.mark.parametrize("crop", [None, 60])
@pytest.mark.parametrize("photometric", [0.0, 1.0])
def test_boxes_stay_tight_around_masks(crop: int | None, photometric: float) -> None:
    """Ellipses, one of a pixel, and one on the diagonal, of which a cut leaves less than of its box."""
    y, x = np.mgrid[:90, :120]
    diagonal = np.abs(x - 1.2 * y) < 4
    masks = np.stack([((x - 40) / 25) ** 2 + ((y - 30) / 20) ** 2 < 1, (x == 100) & (y == 80), diagonal, x > 110])
    boxes = [[np.min(w), np.min(h), np.max(w) + 1, np.max(h) + 1] for h, w in map(np.nonzero, masks)]
    image = Image.fromarray(np.stack([(255 * masks[i]).astype(np.uint8) for i in (0, 2, 3)], -1))
    target = {
        "boxes": torch.tensor(boxes, dtype=torch.float32),
        "labels": torch.arange(4),
        "masks": torch.tensor(masks.astype(np.uint8)),
    }
    options = DetectionOptions(size=(90, 160), scale_range=(0.6, 2.0), crop=crop, photometric=photometric)
    vary = TrainTransform(options, Preprocessing())
    counts = []
    for seed in range(40):
        torch.manual_seed(seed)
        pixels, varied = vary(image, target)
        assert pixels.shape[1:] == varied["masks"].shape[1:]
        assert crop is None or max(pixels.shape) <= crop
        counts.append(len(varied["labels"]))
        for box, label, mask in zip(*(varied[name] for name in ("boxes", "labels", "masks")), strict=True):
            rows, columns = (mask.any(axis).nonzero().flatten() for axis in (1, 0))
            if label == 1 and not len(rows):
                continue  # a pixel may fall between those of a smaller image
            tight = torch.tensor([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1])
            assert (box - tight).abs().max() <= 1.5, (seed, box, tight)
            if label != 1 and not photometric:
                assert (pixels[{0: 0, 2: 1, 3: 2}[int(label)]][mask > 0] > 100).float().mean() > 0.85
    assert 4 in counts or crop
    assert crop is None or min(counts) < 4


def test_evaluation_in_order_for_each_process(tmp_path: Path) -> None:
    images = open_coco(make(tmp_path), "test")
    shares = [EvaluationShare(len(images), rank, 2) for rank in range(2)]
    loaders = [evaluation_loader(DetectionSamples(images, FIT, False), 2, 0, share, collate) for share in shares]
    found = [[int(t["image_id"]) for _, targets in loader for t in targets] for loader in loaders]
    assert found == [[7, 9], [3, UNCOUNTED]]
    pixels, targets = next(iter(loaders[0]))
    assert type(pixels) is type(targets) is list
    assert "masks" not in targets[0]
    with pytest.raises(UserError, match="batch_size must be at least 1"):
        evaluation_loader(DetectionSamples(images, FIT, False), 0)


def test_an_unreadable_image_counts_only_if_it_must(tmp_path: Path) -> None:
    root = make(tmp_path)
    (root / "images" / "val" / "a.png").write_bytes(b"no image")
    images = open_coco(root, "test")
    with pytest.raises(UserError, match="a.png is not a readable image"):
        list(evaluation_loader(DetectionSamples(images, FIT, True), 1, 0, collate=collate))
    with pytest.warns(UserWarning, match="a.png is not a readable image"):
        batches = list(
            evaluation_loader(DetectionSamples(images, FIT, True, skip_unreadable=True), 1, 0, collate=collate)
        )
    assert [int(targets[0]["image_id"]) for _, targets in batches] == [7, UNCOUNTED, 9]


SIZES = np.array([(30, 40) if index % 3 else (40, 30) for index in range(50)])


@pytest.mark.parametrize("processes", [1, 2, 4])
def test_groups(processes: int) -> None:
    tall = SIZES[:, 0] > SIZES[:, 1]
    ranks = [GroupedBatches(SIZES, 8 // processes, 5, rank, processes) for rank in range(processes)]
    whole = [sum(parts, []) for parts in zip(*ranks, strict=True)]
    assert whole == list(GroupedBatches(SIZES, 8, 5)), "the same global batches"
    assert len(whole) == len(ranks[0]) == 17 // 8 + 33 // 8
    images = [[draw.image for draw in batch] for batch in whole]
    assert all(len(set(tall[batch])) == 1 for batch in images)
    assert len(set(sum(images, []))) == 8 * len(whole), "none twice"
    ranks[0].set_epoch(1)
    assert len({tuple(tall[[b[0].image for b in GroupedBatches(SIZES, 8, s)]]) for s in range(6)}) > 1, "mixed"
    assert [draw.image for batch in ranks[0] for draw in batch] != [
        d.image for b in GroupedBatches(SIZES, 8, 5) for d in b
    ]


def test_groups_go_on_inside_an_epoch() -> None:
    whole = list(GroupedBatches(SIZES, 4, 5, epoch=3))
    resumed = GroupedBatches(SIZES, 4, 5, epoch=3, start=2)
    assert list(resumed) == whole[2:]
    resumed.set_epoch(4)
    assert list(resumed) == list(GroupedBatches(SIZES, 4, 5, epoch=4))
    seen = {draw.image for epoch in range(20) for b in GroupedBatches(SIZES, 16, 5, epoch=epoch) for draw in b}
    assert len(seen) == len(SIZES), "other images are left out in each epoch"


@pytest.mark.parametrize(("length", "batch_size"), [(50, 20), (50, 40), (50, 60), (3, 2), (2, 8)])
def test_a_group_that_fills_no_batch_joins_the_other(length: int, batch_size: int) -> None:
    grouped, plain = GroupedBatches(SIZES[:length], batch_size, 1), TrainBatches(length, batch_size, 1)
    assert (list(grouped), len(grouped)) == (list(plain), len(plain))


def test_one_shape_is_one_group() -> None:
    grouped = GroupedBatches(SIZES[np.zeros(20, int)], 8, 1)
    assert len(list(grouped)) == len(grouped) == 2


def test_the_data_of_a_run(tmp_path: Path) -> None:
    root = make(tmp_path)
    boxes = DetectionOptions(DetectorConfig("retinanet"), FIT.size)
    data = DetectionData(open_for_run(root, masks=False), FIT, 2, boxes, num_workers=0)
    assert data.classes == data.test_images.classes == ("cat", "dog")
    ((pixels, targets),) = data.train_dataloader()
    assert [image.dtype for image in pixels] == [torch.uint8] * 2
    assert set(targets[0]) == {"boxes", "labels"}
    assert [len(images) for images, _ in data.val_dataloader()] == [2, 1]
    masks = DetectionData(
        open_for_run(root), FIT, 2, DetectionOptions(size=FIT.size, group_by_aspect_ratio=False), num_workers=0
    )
    assert "masks" in next(iter(masks.train_dataloader()))[1][0]
    assert type(data.train_batches()) is GroupedBatches
    assert type(masks.train_batches()) is TrainBatches
    # As it was called before version 0.2.
    old = masks.sampler_fingerprint()
    old["group"] = old.pop("group_by_aspect_ratio")
    for made in (masks.sampler_fingerprint(), old):
        masks.load_state_dict({"epoch": 1, "start": 1, "batches": made})
        with pytest.raises(UserError, match="group_by_aspect_ratio 0; now they would be composed"):
            data.load_state_dict({"epoch": 1, "start": 1, "batches": made})


def test_a_validation_part_may_lack_classes_but_have_no_others(tmp_path: Path) -> None:
    root = make(tmp_path)
    data = content()
    data["categories"] = data["categories"][:1]
    data["annotations"] = data["annotations"][:1]
    file = root / "annotations" / "instances_val.json"
    file.write_text(json.dumps(data))
    assert open_for_run(root).val.targets(0).labels.tolist() == [1]
    data["categories"][0]["name"] = "ape"
    file.write_text(json.dumps(data))
    with pytest.raises(UserError, match=r"instances_val.json has classes that the model does not have \(1: ape\)"):
        open_for_run(root)


def test_opening_says_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        images = open_coco(make(tmp_path), "train", masks=False)
    assert isinstance(images, CocoImages)
    assert images.targets(0).segmentations == [None] * 3
    assert collate([samples(tmp_path)[0]])[1][0]["labels"].tolist() == [1, 0, 1]
    assert capsys.readouterr() == ("", "")
