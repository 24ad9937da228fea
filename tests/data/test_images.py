"""Pictures of every kind that people have, and files that are none."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fastvit.data.images import find_images, read_image
from fastvit.errors import UserError

RED = (200, 30, 40)


def saved(image: Image.Image, path: Path, **options: object) -> Path:
    image.save(path, **options)
    return path


def pixel(path: Path) -> tuple[int, ...]:
    image = read_image(path)
    assert image.mode == "RGB"
    return image.getpixel((0, 0))


def test_sixteen_bits_are_scaled(tmp_path: Path) -> None:
    deep = np.full((4, 4), 40_000, np.uint16)
    for name in ("deep.png", "deep.tif"):
        assert pixel(saved(Image.fromarray(deep), tmp_path / name)) == (156, 156, 156), name
    dark = np.full((4, 4), 200, np.uint16)
    assert pixel(saved(Image.fromarray(dark), tmp_path / "dark.png")) == (1, 1, 1), "a dark 16-bit image stays dark"


def test_pixels_without_a_stated_range(tmp_path: Path) -> None:
    for value, expected in ((200, 200), (40_000, 156)):
        path = saved(Image.fromarray(np.full((4, 4), value, np.int32)), tmp_path / f"{value}.tif")
        assert pixel(path) == (expected,) * 3


def test_float_pixels(tmp_path: Path) -> None:
    assert pixel(saved(Image.fromarray(np.full((4, 4), 0.5, np.float32)), tmp_path / "f.tif")) == (128, 128, 128)


def test_cmyk(tmp_path: Path) -> None:
    path = saved(Image.new("CMYK", (4, 4), (0, 255, 255, 0)), tmp_path / "print.jpg")
    assert pixel(path) == pytest.approx((254, 0, 0), abs=3)


def test_palette_and_its_transparency(tmp_path: Path) -> None:
    image = Image.new("P", (4, 4), 1)
    image.putpalette([0, 0, 0, *RED])
    assert pixel(saved(image, tmp_path / "plain.png")) == RED
    assert pixel(saved(image, tmp_path / "clear.png", transparency=1)) == (255, 255, 255)


@pytest.mark.parametrize(("mode", "color"), [("RGBA", (*RED, 0)), ("LA", (10, 0))])
def test_transparency_lies_on_white(tmp_path: Path, mode: str, color: tuple[int, ...]) -> None:
    assert pixel(saved(Image.new(mode, (4, 4), color), tmp_path / "clear.png")) == (255, 255, 255)
    half = (*color[:-1], 128)
    assert pixel(saved(Image.new(mode, (4, 4), half), tmp_path / "half.png"))[1] == pytest.approx(
        (255 + color[1 if mode == "RGBA" else 0]) / 2, abs=1
    )


def test_turned_by_exif(tmp_path: Path) -> None:
    image = Image.new("RGB", (6, 4))
    image.putpixel((5, 0), RED)
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held upright: turn by a quarter to see it right
    turned = read_image(saved(image, tmp_path / "phone.png", exif=exif))
    assert turned.size == (4, 6)
    assert turned.getpixel((3, 5)) == RED


def test_other_kinds(tmp_path: Path) -> None:
    assert pixel(saved(Image.new("1", (4, 4), 1), tmp_path / "bits.png")) == (255, 255, 255)
    assert pixel(saved(Image.new("L", (1, 1), 7), tmp_path / "one.png")) == (7, 7, 7)
    assert pixel(saved(Image.new("RGB", (4, 4), RED), tmp_path / "a.gif")) == RED
    assert read_image((tmp_path / "one.png").read_bytes()).size == (1, 1)


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "gif"])
def test_cut_short(tmp_path: Path, suffix: str) -> None:
    buffer = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    Image.fromarray(noise).save(buffer, suffix.replace("jpg", "jpeg"))
    path = tmp_path / f"short.{suffix}"
    path.write_bytes(buffer.getvalue()[: len(buffer.getvalue()) // 2])
    with pytest.raises(UserError, match=r"short.* cannot be decoded|short.* is not a readable image"):
        read_image(path)


def test_no_image_at_all(tmp_path: Path) -> None:
    path = tmp_path / "letter.jpg"
    path.write_text("Dear Sir or Madam")
    with pytest.raises(UserError, match=r"letter.jpg is not a readable image"):
        read_image(path)
    path.write_bytes(b"")
    with pytest.raises(UserError, match=r"letter.jpg is not a readable image"):
        read_image(path)
    with pytest.raises(UserError, match="does not exist"):
        read_image(tmp_path / "none.jpg")


def test_find_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "deep").mkdir()
    for name in ("b.png", "a.JPG", "deep/c.webp", "notes.txt"):
        (tmp_path / name).touch()
    monkeypatch.chdir(tmp_path)
    names = [str(p) for p in find_images(["."])]
    assert names == ["a.JPG", "b.png", "deep/c.webp"]
    assert [str(p) for p in find_images(["*.png", "notes.txt"])] == ["b.png", "notes.txt"], (
        "a named file is taken as is"
    )
    assert find_images([f"{tmp_path}/*.JPG"]) == [tmp_path / "a.JPG"]
    for wrong in ("*.bmp", "deep/none*"):
        with pytest.raises(UserError, match="no image was found at"):
            find_images([wrong])
    with pytest.raises(UserError, match=r"none\.png does not exist"):
        find_images(["none.png"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="the folder empty contains no images"):
        find_images(["empty"])
