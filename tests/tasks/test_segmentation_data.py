"""Folders of images with masks, how they are varied for training, and the batches of both."""

from __future__ import annotations

import pickle
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fastvit.data.module import evaluation_loader
from fastvit.data.pixels import eval_array
from fastvit.data.sampling import PADDING, EvaluationShare, SampleIndex, seeded
from fastvit.errors import UnreadableImageError, UserError
from fastvit.model.preprocessing import Preprocessing
from fastvit.tasks.colors import palette
from fastvit.tasks.segmentation.ade20k import ADE20K_CLASSES
from fastvit.tasks.segmentation.data import SegmentationData, SegmentationSamples, listed, open_for_run
from fastvit.tasks.segmentation.folders import VOID, MaskedImages, open_masks, read_legend
from fastvit.tasks.segmentation.options import SegmentationOptions
from fastvit.tasks.segmentation.transforms import TrainTransform, choose_crop, photometric, share_of_largest

CLASSES = "0\tground\t0 0 0\n3\ttraffic light\t250 170 30\n7\tcar\t0 0 142\n"
FIT = Preprocessing((40, 90), resize="resize_shorter")
PLAIN = SegmentationOptions(size=(40, 90), scale_range=(1, 1), crop=48, cat_max_ratio=1, hflip=0, photometric=0)


def write(root: Path, name: str, mask: Image.Image, size: tuple[int, int] | None = None, **folders: str) -> Path:
    """An image of noise and its mask; `folders` are "images" and "masks", below the root."""
    images, masks = (root / folders.get(kind, f"{kind}/train") for kind in ("images", "masks"))
    for path in ((images / name).parent, (masks / name).parent):
        path.mkdir(parents=True, exist_ok=True)
    width, height = size or mask.size
    noise = np.random.default_rng(len(name)).integers(0, 256, (height, width, 3), np.uint8)
    Image.fromarray(noise).save(images / f"{name}.png")
    mask.save(masks / f"{name}.png")
    return root


def mask_of(values: object, mode: str = "L") -> Image.Image:
    mask = Image.fromarray(np.array(values, np.uint8), "L")
    if mode == "P":
        indices = np.asarray(mask)
        mask = Image.fromarray(indices, "P")
        mask.putpalette([9, 9, 9] * 256)
    return mask


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two images to train on and three, of odd sizes, to validate on, in which about each fifth pixel is ignored."""
    (tmp_path / "classes.txt").write_text(CLASSES)
    generator = np.random.default_rng(0)
    for split, sizes in {"train": [(61, 33), (30, 71)], "val": [(64, 48), (33, 67), (45, 45)]}.items():
        for index, (height, width) in enumerate(sizes):
            values = generator.choice([0, 3, 7, 7, 255], (height, width))
            write(tmp_path, str(index), mask_of(values), images=f"images/{split}", masks=f"masks/{split}")
    return tmp_path


def test_ade20k_names() -> None:
    assert len(set(ADE20K_CLASSES)) == len(ADE20K_CLASSES) == 150
    assert ADE20K_CLASSES[:4] == ("wall", "building", "sky", "floor")
    assert ADE20K_CLASSES[-4:] == ("radiator", "glass", "clock", "flag")
    places = {40: "cushion", 65: "coffee table", 90: "television", 110: "swimming pool", 127: "animal", 138: "tray"}
    assert {index: ADE20K_CLASSES[index - 1] for index in places} == places


def test_ade20k_as_it_comes(tmp_path: Path) -> None:
    write(tmp_path, "a", mask_of([[0, 1, 150]]), images="images/training", masks="annotations/training")
    write(tmp_path, "b", mask_of([[0, 151]]), images="images/validation", masks="annotations/validation")
    train = open_masks(tmp_path, "train")
    assert train.classes == ADE20K_CLASSES
    assert train.mask(0).tolist() == [[VOID, 0, 149]]
    assert train.mask(0).dtype == np.uint8
    with pytest.raises(UserError, match=r"b\.png has values without a class \(1: 151\).* have 0 to 150"):
        open_masks(tmp_path, "test").mask(0)
    (tmp_path / "classes.txt").write_text("0 nothing\n1 wall\n150 flag\n")
    assert open_masks(tmp_path, "train").mask(0).tolist() == [[0, 1, 2]], "classes.txt goes before ADE20K's names"


@pytest.mark.parametrize(
    ("split", "images", "masks"),
    [
        ("train", "images/train", "masks/train"),
        ("test", "images/val", "masks/val"),
        ("test", "images/validation", "masks/validation"),
        ("test", "images/test", "masks/test"),
        ("train", "train", "masks/train"),
        ("test", "val", "masks/val"),
        ("train", "images/training", "annotations/training"),
    ],
)
def test_layouts(tmp_path: Path, split: str, images: str, masks: str) -> None:
    (tmp_path / "classes.txt").write_text(CLASSES)
    (tmp_path / "annotations").mkdir()
    (tmp_path / "annotations" / "instances_train.json").write_text("{}")
    write(tmp_path, "street/0", mask_of([[7, 255], [0, 3]], "P"), images=images, masks=masks)
    (tmp_path / masks / "._0.png").touch()
    pictures = open_masks(str(tmp_path), split)  # type: ignore[arg-type]
    assert (len(pictures), pictures.classes) == (1, ("ground", "traffic light", "car"))
    assert pictures.mask(0).tolist() == [[2, 255], [0, 1]]
    assert pictures.name(0) == str(tmp_path / images / "street" / "0.png")
    assert pictures.image(0).size == (2, 2)
    assert pictures.palette.tolist() == [[0, 0, 0], [250, 170, 30], [0, 0, 142]]


@pytest.mark.parametrize(
    ("removed", "message"),
    [
        ("", "has no training images: put them in images/train, and a mask .* in masks/train"),
        ("masks", "images/train has images without masks: put a mask for each in .*masks/train"),
        ("classes.txt", r"the file .*classes\.txt does not exist: write it with a line per class"),
        ("images/train/*.png", "images/train contains no images"),
        (".", "does not exist; expected a folder with images/train"),
    ],
)
def test_what_is_not_there_is_named(folder: Path, removed: str, message: str) -> None:
    if removed == "":
        (folder / "images").rename(folder / "pictures")
    elif removed == "masks":
        (folder / "masks").rename(folder / "labels")
    elif removed == ".":
        folder = folder / "elsewhere"
    else:
        for path in folder.glob(removed):
            path.unlink()
    with pytest.raises(UserError, match=message):
        open_masks(folder, "train")


def test_missing_masks_and_images_are_named_at_once(tmp_path: Path) -> None:
    (tmp_path / "classes.txt").write_text(CLASSES)
    for name in [f"{i:02}" for i in range(14)]:
        write(tmp_path, name, mask_of([[0]]))
    for i in range(1, 13):
        (tmp_path / "masks" / "train" / f"{i:02}.png").unlink()
    (tmp_path / "images" / "train" / "13.png").unlink()
    Image.new("RGB", (1, 1)).save(tmp_path / "images" / "train" / "00.jpg")
    with pytest.raises(UserError) as raised:
        open_masks(tmp_path, "train")
    message = str(raised.value)
    assert re.match(r"12 images have no mask in .*train: 01\.png, 02\.png, 03\.png,.* 10\.png and 2 more; ", message)
    assert re.search(r"; 1 mask has no image in .*train: 13\.png; ", message)
    assert re.search(r"; 2 files in .*train differ only in their suffix: 00\.jpg, 00\.png; ", message)
    assert "; add a mask with the same name (.png, " in message


def test_class_folders_are_not_segmentation_data(tmp_path: Path) -> None:
    (tmp_path / "train" / "cat").mkdir(parents=True)
    (tmp_path / "plain").mkdir()
    for folder in (tmp_path, tmp_path / "plain"):
        with pytest.raises(UserError, match=r"does not have the layout of segmentation data: .*/masks/train/\*\.png"):
            open_masks(folder, "train")


def test_classes_file(tmp_path: Path) -> None:
    file = tmp_path / "classes.txt"
    text = "# value name color\r\n\n 12  big cat \t 1, 2,3  # comment\r\n7\tdog # 2\t9 9 9\n255 ignored 255 255 255\n"
    file.write_bytes(b"\xef\xbb\xbf" + text.encode() + b"0\tignored\n9\tC# code\n8\tname 1 2 \t4 5 6\n")
    legend = read_legend(file)
    assert legend.names == ("big cat", "dog", "C# code", "name 1 2")
    assert legend.values == (12, 7, 9, 8)
    assert legend.colors == ((1, 2, 3), None, None, (4, 5, 6))
    assert (legend.ignored, legend.ignored_colors) == ((255, 0), ((255, 255, 255),))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("cat\n", r"line 1 of .*classes\.txt is 'cat': write the value"),
        ("0\tcat\n1\tdog\t1 2\n", r"line 2 of .* is '1\\tdog\\t1 2'"),
        ("0 cat 1 2 256", "red, green and blue up to 255"),
        ("65535 cat", "up to 65534"),
        ("255 cat", "gives cat the value 255, which is always ignored"),
        ("0 cat\n0 dog", "line 2 of .* has the value 0 of a line above"),
        ("0 cat\n\n1 cat", "line 3 of .* has the name cat of"),
        ("0 cat 1 2 3\n1 dog 1 2 3", r"has the color \(1, 2, 3\) of"),
        ("# nothing\n0 ignored\n", "has 0 classes, not 1 to 254"),
        ("\n".join(f"{i} class {i}" for i in range(255)), "has 255 classes, not 1 to 254"),
    ],
)
def test_a_classes_file_that_is_wrong(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "classes.txt").write_text(text)
    with pytest.raises(UserError, match=message):
        read_legend(tmp_path / "classes.txt")


def one(tmp_path: Path, mask: Image.Image, classes: str = CLASSES, **others: object) -> MaskedImages:
    (tmp_path / "classes.txt").write_text(classes)
    return open_masks(write(tmp_path, "x", mask, **others), "train")  # type: ignore[arg-type]


def test_unknown_values_are_an_error(tmp_path: Path) -> None:
    pictures = one(tmp_path, mask_of([[0, 4], [9, 255]]))
    with pytest.raises(UserError, match=r"masks/train/x\.png has values without a class \(2: 4, 9\): add a line"):
        pictures.mask(0)
    pictures = one(tmp_path, mask_of([[0, 4], [9, 255]]), CLASSES + "4\tignored\n9\tbus\n")
    assert pictures.mask(0).tolist() == [[0, 255], [3, 255]]


def test_masks_of_other_depths(tmp_path: Path) -> None:
    deep = Image.fromarray(np.array([[0, 3000, 255, 65535]], np.uint16))
    assert deep.mode == "I;16"
    assert one(tmp_path, deep, "0 ground\n3000 star\n").mask(0).tolist() == [[0, 1, 255, 255]]
    with pytest.raises(UserError, match=r"\(1: 3000\)"):
        one(tmp_path, deep).mask(0)
    bits = Image.fromarray(np.array([[True, False]]))
    assert one(tmp_path, bits, "0 ground\n1 star\n").mask(0).tolist() == [[1, 0]]
    transparent = Image.merge("LA", (mask_of([[7, 0]]), mask_of([[9, 0]])))
    assert one(tmp_path, transparent).mask(0).tolist() == [[2, 0]]
    Image.new("F", (2, 1)).save(tmp_path / "masks" / "train" / "x.tiff")
    (tmp_path / "masks" / "train" / "x.png").unlink()
    with pytest.raises(UserError, match=r"x\.tiff has Pillow's mode F"):
        open_masks(tmp_path, "train").mask(0)


@pytest.mark.parametrize("alpha", [False, True])
def test_color_masks(tmp_path: Path, alpha: bool) -> None:
    colors = [[(0, 0, 0), (250, 170, 30)], [(0, 0, 142), (255, 255, 255)]]
    mask = Image.fromarray(np.array(colors, np.uint8))
    if alpha:
        mask.putalpha(200)
    pictures = one(tmp_path, mask, CLASSES + "255\tignored\t255 255 255\n")
    assert pictures.mask(0).tolist() == [[0, 1], [2, 255]]
    with pytest.raises(UserError, match=r"x\.png has colors without a class \(1: 255 255 255\)"):
        one(tmp_path, mask).mask(0)
    with pytest.raises(UserError, match=r"x\.png is in color, but no class has a color: add colors to .*classes\.txt"):
        one(tmp_path, mask, "0 ground\n3 light\n7 car\n").mask(0)


def test_labels_follow_the_models_classes(tmp_path: Path) -> None:
    one(tmp_path, mask_of([[0, 3, 7, 255]]))
    names = ("sky", "car", "ground", "traffic light")
    pictures = open_masks(tmp_path, "train", names)
    assert pictures.classes == names
    assert pictures.mask(0).tolist() == [[2, 3, 1, 255]]
    assert pictures.palette[1:].tolist() == [[0, 0, 142], [0, 0, 0], [250, 170, 30]]
    with pytest.raises(UserError, match=r"does not have \(1: traffic light\)"):
        open_masks(tmp_path, "train", ("car", "ground"))


def test_colors_can_be_told_apart() -> None:
    for given in ([None] * 254, [(128, 64, 128), None, (70, 70, 70), *[None] * 147]):
        colors = palette(given).astype(int)
        distance = np.linalg.norm(colors[:, None] - colors, axis=-1) + 1000 * np.eye(len(colors))
        assert distance.min() >= 30
    assert colors[[0, 2]].tolist() == [[128, 64, 128], [70, 70, 70]]


def test_sizes_must_agree(tmp_path: Path) -> None:
    pictures = one(tmp_path, mask_of([[0, 3, 7]]), size=(3, 2))
    with pytest.raises(UserError, match=r"images/train/x\.png is 3x2 pixels, but its mask .*masks/train/x\.png is 3x1"):
        pictures.mask(0)


def test_an_image_on_its_side_is_turned_as_its_mask_is(tmp_path: Path) -> None:
    pictures = one(tmp_path, mask_of(np.zeros((2, 3))))
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (2, 3)).save(tmp_path / "images" / "train" / "x.png", exif=exif)
    assert pictures.image(0).size == (3, 2)
    assert pictures.mask(0).shape == (2, 3)


@pytest.mark.parametrize("broken", ["images", "masks"])
def test_unreadable_files(folder: Path, broken: str) -> None:
    path = folder / broken / "train" / "0.png"
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(UnreadableImageError, match=re.escape(str(path))):
        open_masks(folder, "train").mask(0)
    data = SegmentationData(open_for_run(str(folder)), FIT, 2, replace(PLAIN, crop=96), num_workers=0)
    ((images, masks),) = data.train_dataloader()
    assert torch.equal(images[0], images[1]), "the next one stands in"
    assert torch.equal(masks[0], masks[1])
    assert [(Path(name).name, str(path) in reason) for name, reason in data.unreadable.items()] == [("0.png", True)]
    pictures = open_masks(folder, "train")
    with pytest.warns(UserWarning, match="is skipped"):
        first, second = evaluation_loader(
            SegmentationSamples(pictures, FIT, skip_unreadable=True), 1, 0, collate=listed
        )
    assert (first[1][0] == VOID).all()
    assert second[1][0].shape == (30, 71)


@pytest.mark.filterwarnings("error::UserWarning")
@pytest.mark.parametrize("mode", ["RGBA", "L", "I;16", "CMYK"])
def test_images_in_any_mode(tmp_path: Path, mode: str) -> None:
    pictures = one(tmp_path, mask_of(np.zeros((20, 31))))
    suffix = "tif" if mode == "CMYK" else "png"
    (tmp_path / "images" / "train" / "x.png").unlink()
    Image.new(mode, (31, 20)).save(tmp_path / "images" / "train" / f"x.{suffix}")
    pictures = open_masks(tmp_path, "train")
    for channels in (3, 1):
        samples = SegmentationSamples(pictures, FIT.for_channels(channels), PLAIN)
        assert samples[0][0].shape == (channels, 40, 62)
        assert samples[SampleIndex(0, 0)][0].shape == (channels, 48, 48)


def test_training_batches(folder: Path) -> None:
    data = SegmentationData(open_for_run(str(folder)), FIT, 2, replace(PLAIN, scale_range=(0.5, 2)), num_workers=0)
    assert data.classes == ("ground", "traffic light", "car")
    ((images, masks),) = data.train_dataloader()
    assert (images.shape, images.dtype) == ((2, 3, 48, 48), torch.uint8)
    assert (masks.shape, masks.dtype) == ((2, 48, 48), torch.uint8)
    assert set(masks.unique().tolist()) == {0, 1, 2, 255}


def test_validation_batches_are_lists(folder: Path) -> None:
    data = SegmentationData(open_for_run(str(folder)), FIT, 2, PLAIN, num_workers=0)
    batches = list(data.val_dataloader())
    assert [mask[0].shape for _, mask in batches] == [(64, 48), (33, 67), (45, 45)], "as they are stored"
    assert [image[0].shape for image, _ in batches] == [(3, 53, 40), (3, 40, 81), (3, 40, 40)]
    pictures = data.test_images
    for index, ((image,), (mask,)) in enumerate(batches):
        assert np.array_equal(image.numpy(), eval_array(pictures.image(index), FIT))
        assert np.array_equal(mask.numpy(), pictures.mask(index))
        assert mask.dtype == torch.uint8
    (images, masks), (last, _) = evaluation_loader(SegmentationSamples(pictures, FIT), 2, 0, collate=listed)
    assert (len(images), len(masks), len(last)) == (2, 2, 1)


def test_processes_share_the_validation_images(folder: Path) -> None:
    pictures = open_masks(folder, "test")
    samples = SegmentationSamples(pictures, FIT)
    batches = [list(evaluation_loader(samples, 1, 0, EvaluationShare(3, rank, 2), listed)) for rank in range(2)]
    assert [len(share) for share in batches] == [2, 2]
    image, mask = batches[1][1][0][0], batches[1][1][1][0]
    assert image.shape == (3, 32, 32)
    assert (mask == VOID).all()
    assert torch.equal(SegmentationSamples(pictures, FIT)[PADDING][1], mask)


def test_what_cannot_be_trained_on(folder: Path) -> None:
    pictures = open_masks(folder, "train")
    with pytest.raises(UserError, match='set resize to "resize_shorter", not "crop"'):
        SegmentationSamples(pictures, Preprocessing())
    with pytest.raises(UserError, match="images of 1 or 3 channels, not 4"):
        SegmentationSamples(pictures, FIT.for_channels(4))
    with pytest.raises(UserError, match="batch_size must be at least 1"):
        evaluation_loader(SegmentationSamples(pictures, FIT), 0)
    (folder / "classes.txt").write_text("0 thing\n3 ignored\n7 ignored\n")
    with pytest.raises(UserError, match=r"has one class \(thing\)"):
        open_for_run(str(folder))


def test_a_draws_seed_says_what_it_becomes(folder: Path) -> None:
    options = SegmentationOptions(size=(40, 90), crop=32)
    samples = SegmentationSamples(open_masks(folder, "train"), FIT, options)
    first, again, other = samples[SampleIndex(0, 5)], samples[SampleIndex(0, 5)], samples[SampleIndex(0, 6)]
    sent = pickle.loads(pickle.dumps(samples))[SampleIndex(0, 5)]
    for one_of, of_again, of_sent, of_other in zip(first, again, sent, other, strict=True):
        assert torch.equal(one_of, of_again)
        assert torch.equal(one_of, of_sent)
        assert not torch.equal(one_of, of_other)
        assert type(one_of) is torch.Tensor


def halves(height: int, width: int) -> tuple[Image.Image, np.ndarray]:
    """Black on the left, of class 0, and white on the right, of class 1."""
    mask = np.zeros((height, width), np.uint8)
    mask[:, width // 2 :] = 1
    return Image.fromarray(np.repeat(255 * mask[..., None], 3, -1)), mask


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic", "nearest"])
@pytest.mark.parametrize("hflip", [0, 1])
def test_image_and_mask_stay_together(interpolation: str, hflip: float) -> None:
    fit = replace(FIT, interpolation=interpolation)
    transform = TrainTransform(replace(PLAIN, scale_range=(0.5, 2), crop=37, hflip=hflip), fit)
    seen = set()
    for seed in range(20):
        with seeded(seed):
            image, mask = transform(*halves(57, 83))
        counted = mask != VOID
        agree = ((image[0] > 127) == (mask == 1))[counted].double().mean()
        assert agree > 0.95, "up to one column at the edge between them"
        inside = mask[counted].view(int(counted.sum(1).gt(0).sum()), -1)
        step = torch.diff(inside[0].int())
        seen.update(step.unique().tolist())
    assert seen == {0, -1 if hflip else 1}


def test_what_is_missing_is_mean_and_ignored() -> None:
    mean = (0.2, 0.4, 0.6)
    transform = TrainTransform(replace(PLAIN, crop=64, photometric=1, hflip=1), replace(FIT, mean=mean))
    image, mask = transform(*halves(20, 15))  # scaled to 53 x 40
    assert (mask[:53, :40] != VOID).all()
    assert (mask[53:] == VOID).all()
    assert (mask[:, 40:] == VOID).all()
    outside = (mask == VOID).expand_as(image)
    expected = torch.tensor([51, 102, 153]).view(3, 1, 1).expand_as(image)
    assert torch.equal(image[outside].long(), expected[outside])


def test_scale_is_drawn_from_the_ratio() -> None:
    heights = []
    for seed in range(40):
        with seeded(seed):
            _, mask = TrainTransform(replace(PLAIN, scale_range=(0.5, 2), crop=200), FIT)(*halves(20, 20))
        heights.append(int((mask != VOID).any(1).sum()))
    assert 20 <= min(heights) < 30
    assert 70 < max(heights) <= 80


def test_no_class_takes_up_a_crop() -> None:
    labels = torch.zeros(64, 64, dtype=torch.uint8)
    labels[24:40, 24:40] = 1
    shares, free = [], []
    for seed in range(30):
        with seeded(seed):
            top, left, height, width = choose_crop(labels, 24, 0.75)
            shares.append(share_of_largest(labels[top : top + height, left : left + width]))
        with seeded(seed):
            top, left, *_ = choose_crop(labels, 24, 1.0)
            free.append(share_of_largest(labels[top : top + 24, left : left + 24]))
    assert sum(share > 0.75 for share in free) > 15, "most crops are almost all ground"
    assert sum(share > 0.75 for share in shares) <= 3, "up to ten are tried"
    torch.manual_seed(0)
    assert choose_crop(labels[:20, :30], 24, 0.75)[2:] == (20, 24), "no larger than the image"


def test_share_is_of_what_counts() -> None:
    labels = torch.tensor([[0, 0, 0, 2], [255, 255, 255, 255]], dtype=torch.uint8)
    assert share_of_largest(labels) == 0.75
    assert share_of_largest(labels[1:]) == 1


@pytest.mark.parametrize("channels", [1, 3])
def test_colors_change_with_their_probability(channels: int) -> None:
    image = torch.randint(0, 256, (channels, 9, 9), dtype=torch.uint8)
    assert torch.equal(photometric(0.0)(image), image)
    changed = [photometric(1.0)(image) for _ in range(5)]
    assert all(one.shape == image.shape and not torch.equal(one, image) for one in changed)
