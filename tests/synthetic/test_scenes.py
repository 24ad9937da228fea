"""Scenes of the embedded sample, read as others read such datasets."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fastvit.cli.synth.scenes import synth_scenes
from fastvit.data.arrays import FASHION_MNIST_CLASSES, ArrayImages
from fastvit.data.load import open_images
from fastvit.errors import UserError
from fastvit.synthetic import scenes as module
from fastvit.synthetic.scenes import make_scene
from tests.test_cli import complaint, inside, process

COCO = pytest.importorskip("pycocotools.coco").COCO
# pycocotools 2.0.11 with NumPy 2
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")
SPLITS = {"train": ("train", 20), "val": ("test", 4)}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made") / "not there yet" / "scenes"
    synth_scenes(folder, images=20, size=96, seed=3)
    return folder


def digests(folder: Path) -> dict[str, str]:
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def read(folder: Path, split: str) -> Any:
    return COCO(folder / "annotations" / f"instances_{split}.json")


def test_the_folder_holds_what_is_promised(dataset: Path) -> None:
    expected = {"classes.txt", "README.md"}
    for split, (_, count) in SPLITS.items():
        expected |= {f"{kind}/{split}/{i:06d}.png" for kind in ("images", "masks") for i in range(count)}
        expected.add(f"annotations/instances_{split}.json")
    assert set(digests(dataset)) == expected
    assert list(dataset.parent.iterdir()) == [dataset], "nothing is left of the writing"
    readme = (dataset / "README.md").read_text(encoding="utf-8")
    assert "fastvit synth scenes DIR --images 20 --size 96 --seed 3" in readme
    assert "Copyright © 2017 Zalando SE" in readme
    assert "WITHOUT WARRANTY OF ANY KIND" in readme
    synth_scenes(dataset.parent / "one", images=1, size=64)
    assert len(list((dataset.parent / "one" / "images").rglob("*.png"))) == 2, "at least one scene to validate on"


def test_the_same_arguments_give_the_same_bytes(dataset: Path, tmp_path: Path) -> None:
    first = digests(dataset)
    (tmp_path / "again").mkdir()
    synth_scenes(tmp_path / "again", images=20, size=96, seed=3)
    assert digests(tmp_path / "again") == first

    synth_scenes(tmp_path / "more", images=25, size=96, seed=3)
    assert first.items() - digests(tmp_path / "more").items() == {
        (name, first[name]) for name in first if not name.endswith((".png", ".txt"))
    }, "more images add to the same ones"

    synth_scenes(tmp_path / "other", images=20, size=96, seed=4)
    other = digests(tmp_path / "other")
    same = first.keys() & other.keys() - {name for name in first if first[name] != other[name]}
    assert same == {"classes.txt"}
    pictures = [value for name, value in (*first.items(), *other.items()) if name.startswith("images")]
    assert len(set(pictures)) == len(pictures), "no scene is there twice, nor in both splits"


@pytest.mark.parametrize("split", SPLITS)
def test_annotations_and_masks_say_the_same(dataset: Path, split: str) -> None:
    data = read(dataset, split)
    assert len(data.imgs) == SPLITS[split][1]
    for number, entry in data.imgs.items():
        with Image.open(dataset / "images" / split / entry["file_name"]) as opened:
            picture = np.asarray(opened)
            assert opened.mode == "RGB"
        with Image.open(dataset / "masks" / split / entry["file_name"]) as opened:
            semantic = np.asarray(opened)
            assert opened.mode == "P"
        assert picture.shape == (entry["height"], entry["width"], 3) == (*semantic.shape, 3) == (96, 96, 3)
        painted, owners = np.zeros((96, 96), np.uint8), np.zeros((96, 96), int)
        annotations = data.loadAnns(data.getAnnIds(imgIds=number))
        assert 2 <= len(annotations) <= 6
        for annotation in annotations:
            mask = data.annToMask(annotation)
            assert mask.sum() == annotation["area"] >= 30
            rows, columns = np.nonzero(mask)
            left, top, width, height = annotation["bbox"]
            assert (left, top) == (columns.min(), rows.min())
            assert (left + width, top + height) == (columns.max() + 1, rows.max() + 1)
            assert annotation["iscrowd"] == 0
            painted[mask == 1] = annotation["category_id"]
            owners += mask
        assert owners.max() == 1, "what is seen of two items is never the same pixel"
        assert np.array_equal(painted, semantic)
        assert 0.01 < (semantic > 0).mean() < 0.95


def test_the_annotations_are_whole_coco(dataset: Path) -> None:
    for split in SPLITS:
        content = json.loads((dataset / "annotations" / f"instances_{split}.json").read_text(encoding="utf-8"))
        assert set(content) == {"info", "licenses", "images", "annotations", "categories"}
        assert "MIT" in content["licenses"][0]["name"]
        assert {entry["license"] for entry in content["images"]} == {content["licenses"][0]["id"]}
        assert [(c["id"], c["name"]) for c in content["categories"]] == list(enumerate(FASHION_MNIST_CLASSES, 1))
        assert {c["supercategory"] for c in content["categories"]} == {"clothing"}
        ids = [annotation["id"] for annotation in content["annotations"]]
        assert len(set(ids)) == len(ids)
        assert min(ids) == 1, "0 is no match in COCO's own evaluation"


def test_the_list_of_classes_is_the_palette_of_the_masks(dataset: Path) -> None:
    lines = [line.split("\t") for line in (dataset / "classes.txt").read_text(encoding="utf-8").splitlines()]
    assert [(int(index), name) for index, name, _ in lines] == list(enumerate(("background", *FASHION_MNIST_CLASSES)))
    colors = [tuple(map(int, color.split())) for _, _, color in lines]
    assert len(set(colors)) == 11
    paths = list((dataset / "masks").rglob("*.png"))
    for path in paths:
        assert path.read_bytes()[24:26] == bytes((8, 3)), "bit depth and color type of the PNG header"
        with Image.open(path) as mask:
            assert np.array_equal(np.asarray(mask.convert("RGB")), np.array(colors, np.uint8)[np.asarray(mask)])


def likeness(picture: np.ndarray, mask: np.ndarray, box: list[int], item: Image.Image) -> float:
    """Largest correlation of any color of what is in a box with the item or its mirror image."""
    left, top, width, height = box
    gray = np.asarray(item.convert("L"))
    rows, columns = (np.flatnonzero((gray > 40).any(axis)) for axis in (1, 0))
    cut = Image.fromarray(gray[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]).resize((width, height))
    place = slice(top, top + height), slice(left, left + width)
    seen = picture[place][mask[place] == 1].astype(float)
    values = [np.asarray(side, float)[mask[place] == 1] for side in (cut, cut.transpose(Image.Transpose(0)))]
    return max(abs(np.corrcoef(value, seen[:, c])[0, 1]) for value in values for c in range(3))


@pytest.mark.parametrize("split", SPLITS)
def test_items_come_from_the_split_alone(dataset: Path, split: str) -> None:
    data = read(dataset, split)
    own = open_images("sample", SPLITS[split][0])
    other = open_images("sample", "train" if split == "val" else "test")
    assert all(own.labels[a["item"]] + 1 == a["category_id"] for a in data.anns.values())
    likenesses = []
    for number, entry in data.imgs.items():
        with Image.open(dataset / "images" / split / entry["file_name"]) as opened:
            picture = np.asarray(opened)
        annotations = data.loadAnns(data.getAnnIds(imgIds=number))
        for a in annotations:
            left, top, width, height = a["bbox"]
            around = sum(data.annToMask(b)[top : top + height, left : left + width].any() for b in annotations)
            if around == 1:  # nothing hides a part of it
                pair = own.image(a["item"]), other.image(a["item"] % len(other))
                likenesses.append([likeness(picture, data.annToMask(a), a["bbox"], item) for item in pair])
    assert len(likenesses) >= 3
    same, different = np.transpose(likenesses)
    assert np.median(same) > 0.8
    assert (same > different).mean() > 0.9


@pytest.mark.parametrize("size", [64, 128, 161])
def test_every_item_is_seen_and_lies_inside(size: int) -> None:
    items = open_images("sample", "test")
    for seed in range(15):
        scene = make_scene(items, size, np.random.default_rng(seed))
        assert scene.image.shape == (size, size, 3)
        assert scene.image.dtype == np.uint8
        assert 2 <= len(scene.labels) == len(scene.items) == len(scene.masks) == len(scene.boxes) <= 6
        assert (scene.masks.sum((1, 2)) >= 30).all()
        assert (scene.boxes[:, :2] >= 0).all()
        assert (scene.boxes[:, :2] + scene.boxes[:, 2:] <= size).all()
        assert np.array_equal(scene.semantic > 0, scene.masks.any(0))
        # The last one hides others and is hidden by none: its shape is whole, in one piece of the intended size.
        assert 0.15 * size < scene.boxes[-1, 2:].max() < 0.55 * size
        again = make_scene(items, size, np.random.default_rng(seed))
        assert np.array_equal(again.image, scene.image)
        assert np.array_equal(again.owners, scene.owners)


def test_at_least_a_quarter_of_an_item_is_left() -> None:
    # Squares: how large each was before others were drawn on it is seen from any side of it that is whole.
    square = np.zeros((1, 28, 28), np.uint8)
    square[:, 4:24, 4:24] = 200
    items = ArrayImages(square, [8], FASHION_MNIST_CLASSES, "squares")
    hidden = 0
    for seed in range(40):
        scene = make_scene(items, 64, np.random.default_rng(seed))
        assert set(scene.labels.tolist()) == {9}
        for mask, box in zip(scene.masks, scene.boxes, strict=True):
            assert mask.sum() >= 0.25 * box[2] * box[3] * 0.9  # corners are round
            hidden += mask.sum() < 0.9 * box[2] * box[3]
    assert hidden > 5, "some items hide parts of others"


def test_what_is_no_item_is_left_out() -> None:
    dots = np.zeros((2, 28, 28), np.uint8)
    dots[1, ::9, ::9] = 255
    scene = make_scene(ArrayImages(dots, [0, 1], FASHION_MNIST_CLASSES, "dots"), 64, np.random.default_rng(0))
    assert scene.masks.shape == (0, 64, 64)
    assert scene.boxes.shape == (0, 4)
    assert not scene.semantic.any()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"images": 0}, "images must be at least 1, got 0"),
        ({"size": 63}, "size must be from 64 to 4096 pixels, got 63"),
        ({"size": 5000}, "size must be from 64 to 4096 pixels, got 5000"),
        ({"seed": -1}, "seed must be at least 0, got -1"),
    ],
)
def test_senseless_arguments_are_refused(tmp_path: Path, wrong: dict[str, int], message: str) -> None:
    with pytest.raises(UserError, match=message):
        synth_scenes(tmp_path / "out", **wrong)
    assert not list(tmp_path.iterdir())


def test_what_others_wrote_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    notes = tmp_path / "mine" / "notes.txt"
    notes.parent.mkdir()
    notes.write_text("mine", encoding="utf-8")
    (tmp_path / "data" / "images").mkdir(parents=True)
    for overwrite in (False, True):
        with pytest.raises(UserError, match=r"mine contains other files \(notes.txt\): give a folder that is empty"):
            synth_scenes(tmp_path / "mine", images=1, size=64, overwrite=overwrite)
        with pytest.raises(UserError, match=r"data contains other files \(images\)"):
            synth_scenes(tmp_path / "data", images=1, size=64, overwrite=overwrite)
        with pytest.raises(UserError, match="notes.txt is a file: give a folder"):
            synth_scenes(notes, images=1, size=64, overwrite=overwrite)
        with pytest.raises(UserError, match="cannot write .*(File exists|Not a directory); give another folder"):
            synth_scenes(notes / "below", images=1, size=64, overwrite=overwrite)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    with pytest.raises(UserError, match="give a folder inside it"):
        synth_scenes(Path(), images=1, size=64)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "here", "mine"]
    assert notes.read_text(encoding="utf-8") == "mine"
    assert list(notes.parent.iterdir()) == [notes]


def test_scenes_are_replaced_if_asked_for(tmp_path: Path) -> None:
    folder = tmp_path / "scenes"
    synth_scenes(folder, images=2, size=64)
    before = digests(folder)
    with pytest.raises(UserError, match="already contains synthetic scenes: replace them with --overwrite"):
        synth_scenes(folder, images=1, size=64)
    assert digests(folder) == before
    synth_scenes(folder, images=1, size=64, overwrite=True)
    assert len(list((folder / "images").rglob("*.png"))) == 2
    assert list(tmp_path.iterdir()) == [folder]
    (folder / "notes.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(UserError, match=r"contains other files \(notes.txt\)"):
        synth_scenes(folder, images=1, size=64, overwrite=True)
    assert (folder / "notes.txt").exists()


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(28, "No space left on device")])
def test_one_that_is_cut_short_is_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    folder = tmp_path / "scenes"
    synth_scenes(folder, images=1, size=64)
    before = digests(folder)

    def fail(*_: object) -> str:
        raise error

    monkeypatch.setattr(module, "_readme", fail)  # the last thing that is written
    for name in ("scenes", "others"):
        with pytest.raises((KeyboardInterrupt, UserError)) as raised:
            synth_scenes(tmp_path / name, images=2, size=64, overwrite=True)
        if isinstance(raised.value, UserError):
            assert "No space left on device; give another folder" in str(raised.value)
    assert list(tmp_path.iterdir()) == [folder]
    assert digests(folder) == before


def test_the_command(tmp_path: Path) -> None:
    done = process("synth", "scenes", tmp_path / "out", "--images", 3, "--size", 64, "--seed", 1)
    assert done.returncode == 0, done.stderr
    assert done.stderr == "", "no progress bar in a pipe"
    counts = [len(read(tmp_path / "out", split).anns) for split in ("train", "val")]
    assert done.stdout.splitlines() == [
        f"{tmp_path / 'out'}: 3 train scenes with {counts[0]} items, 1 val scenes with {counts[1]} items, 64x64 px"
    ]
    assert complaint("synth", "scenes", tmp_path / "out", run=inside) == (
        f"fastvit: error: {tmp_path / 'out'} already contains synthetic scenes: replace them with --overwrite, or give "
        "another folder"
    )
