"""Evaluation pixels against timm's transform, and torch's arithmetic."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from timm.data import create_transform

from fastvit.data.pixels import eval_array, fitted_size, normalized
from fastvit.data.transforms import normalize
from fastvit.model.preprocessing import Preprocessing

CASES = [
    Preprocessing((256, 256), crop_pct=0.9),
    Preprocessing((224, 224), crop_pct=0.95, interpolation="bilinear"),
    Preprocessing((64, 64), crop_pct=1.0, interpolation="nearest"),
    Preprocessing((96, 160), crop_pct=0.875),
    Preprocessing((160, 96), crop_pct=1.0),
    Preprocessing((33, 47), crop_pct=0.77),
]


@pytest.mark.parametrize("size", [(500, 375), (375, 500), (28, 28), (640, 31), (97, 101), (1, 300)])
@pytest.mark.parametrize("preprocessing", CASES, ids=str)
def test_pixels_are_timms(preprocessing: Preprocessing, size: tuple[int, int]) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (*reversed(size), 3), np.uint8)
    for image in (Image.fromarray(pixels), Image.fromarray(pixels[..., 0])):
        channels = 3 if image.mode == "RGB" else 1
        theirs = create_transform(
            (channels, *preprocessing.size),
            crop_pct=preprocessing.crop_pct,
            interpolation=preprocessing.interpolation,
            normalize=False,
        )(image)
        assert np.array_equal(eval_array(image, preprocessing), theirs.numpy())


def test_numbers_are_torchs() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (2, 3, 40, 30), np.uint8)
    preprocessing = Preprocessing()
    ours = normalized(pixels, preprocessing)
    assert ours.dtype == np.float32
    assert np.array_equal(ours, normalize(torch.from_numpy(pixels), preprocessing).numpy())


def test_what_is_filled_up_is_nothing_to_the_network() -> None:
    """A letterboxed image is in the upper left corner, the rest is the mean, which is 0 when it is normalized."""
    own = Preprocessing((32, 48), mean=(0.2, 0.4, 0.6), std=(0.1, 0.2, 0.3), resize="letterbox")
    image = Image.fromarray(np.full((40, 20, 3), 250, np.uint8))
    pixels = eval_array(image, own)
    assert (pixels.shape, pixels.dtype) == ((3, 32, 48), np.uint8)
    assert (pixels[:, :32, :16] == 250).all()
    assert (pixels[:, :, 16:] == np.array([51, 102, 153]).reshape(3, 1, 1)).all()
    assert np.abs(normalized(pixels, own)[:, :, 16:]).max() < 1e-6
    assert fitted_size((20, 40), own) == (24, 48)
