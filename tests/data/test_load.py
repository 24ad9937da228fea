"""Opening data by a name or a path."""

from __future__ import annotations

import gzip
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import transforms as T
from torchvision.transforms import InterpolationMode

from fastvit.data.arrays import FASHION_MNIST_CLASSES, SAMPLE
from fastvit.data.idx import read_idx, write_idx
from fastvit.data.load import open_images
from fastvit.data.transforms import eval_transform
from fastvit.errors import UserError
from fastvit.model.preprocessing import Preprocessing


def test_the_embedded_sample() -> None:
    train, test = open_images("sample", "train"), open_images("sample", "test")
    assert (len(train), len(test)) == (5500, 1000)
    assert set(Counter(train.labels).values()) == {550}
    assert set(Counter(test.labels).values()) == {100}
    assert train.classes == test.classes == FASHION_MNIST_CLASSES
    assert train.image(0).mode == "RGB"
    assert train.image(0).size == (28, 28)
    assert sum(p.stat().st_size for p in SAMPLE.iterdir()) < 3e6
    assert "MIT" in (SAMPLE / "LICENSE").read_text()


def test_idx_round_trip_plain_and_gzipped(tmp_path: Path) -> None:
    values = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    write_idx(tmp_path / "a.gz", values)
    (tmp_path / "plain").write_bytes(gzip.decompress((tmp_path / "a.gz").read_bytes()))
    write_idx(tmp_path / "b.gz", values)
    assert (tmp_path / "a.gz").read_bytes() == (tmp_path / "b.gz").read_bytes(), "the same bytes every time"
    for name in ("a.gz", "plain"):
        assert np.array_equal(read_idx(tmp_path / name), values)


def test_damaged_idx(tmp_path: Path) -> None:
    write_idx(tmp_path / "a.gz", np.zeros((5, 5), np.uint8))
    whole = (tmp_path / "a.gz").read_bytes()
    raw = gzip.decompress(whole)
    for content in (b"", whole[:-9], raw[:3], raw[:-1], raw + b"x", b"\x00\x00\x0d" + raw[3:], b"letters"):
        (tmp_path / "wrong").write_bytes(content)
        with pytest.raises(UserError, match="corrupt|is not an idx file of unsigned bytes"):
            read_idx(tmp_path / "wrong")


def test_idx_folder(tmp_path: Path) -> None:
    for prefix, count in (("train", 6), ("t10k", 3)):
        write_idx(tmp_path / f"{prefix}-images-idx3-ubyte.gz", np.zeros((count, 9, 9), np.uint8))
        write_idx(tmp_path / f"{prefix}-labels-idx1-ubyte.gz", np.arange(count, dtype=np.uint8) % 3)
    train, test = open_images(tmp_path, "train"), open_images(tmp_path, "test")
    assert (len(train), len(test), train.classes) == (6, 3, ("0", "1", "2"))
    write_idx(tmp_path / "t10k-labels-idx1-ubyte.gz", np.zeros(4, np.uint8))
    with pytest.raises(UserError, match=r"3 images.*4 labels"):
        open_images(tmp_path, "test")
    (tmp_path / "t10k-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(UserError, match="has no file t10k-labels"):
        open_images(tmp_path, "test")


def test_what_is_not_there(tmp_path: Path) -> None:
    for source, message in {
        str(tmp_path / "none"): "does not exist",
        str(tmp_path): "no images in class folders",
        "torch/Imaginary": "unknown torchvision dataset 'torch/Imaginary'",
    }.items():
        with pytest.raises(UserError, match=message):
            open_images(source, "test")


def test_evaluation_transform_is_the_published_one() -> None:
    """Against the same steps written with torchvision."""
    rng = np.random.default_rng(0)
    image = Image.fromarray(rng.integers(0, 255, (300, 400, 3), np.uint8))
    ours = eval_transform(Preprocessing((256, 256), crop_pct=0.9))(image)
    theirs = T.Compose(
        [
            T.Resize(284, InterpolationMode.BICUBIC),
            T.CenterCrop(256),
            T.ToTensor(),
            T.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        ]
    )(image)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-6)


def test_tiny_and_wide_images_transform() -> None:
    for size in ((1, 1), (3, 500)):
        assert eval_transform(Preprocessing((64, 64)))(Image.new("RGB", size)).shape == (3, 64, 64)
