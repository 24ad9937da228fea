"""Labeled images that fit into memory: the embedded sample, idx files, torchvision's small sets."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from fastvit.data.idx import read_idx
from fastvit.data.images import to_rgb
from fastvit.data.split_names import Split
from fastvit.errors import UserError, unknown_name

SAMPLE = Path(__file__).parent / "fashion_mnist_sample"
FASHION_MNIST_CLASSES = (
    *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
    *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
)
TORCHVISION_SETS = ("MNIST", "FashionMNIST", "KMNIST", "CIFAR10", "CIFAR100")
_IDX_PREFIX = {"train": "train", "test": "t10k"}
# MNIST and Fashion-MNIST files have the same names: the labels tell them apart. SHA-256 of the uncompressed labels.
_FASHION_MNIST_LABELS = frozenset(
    {
        "657fbd221bfc9f4198cc14b5619cc33ec57c58dd0e47af4d99d6650759e869a7",
        "3d0e6c6ea990b53b6f8f500a41cac93881d981b315f84578b7d915342ade01e9",
    }
)


class ArrayImages:
    """Labeled images in memory.

    Args:
        images: uint8 pixels, (N, H, W) gray or (N, H, W, 3) RGB.
        labels: class index of each image.
        classes: class names.
        name: prefix of the images' names, which are "NAME[INDEX]".
    """

    def __init__(self, images: np.ndarray, labels: Sequence[int], classes: Sequence[str], name: str) -> None:
        self._images, self._name = images, name
        self.labels = [int(label) for label in labels]
        self.classes = tuple(classes)

    def __len__(self) -> int:
        return len(self._images)

    def image(self, index: int) -> Image.Image:
        """Return an image as RGB."""
        return to_rgb(Image.fromarray(self._images[index]))

    def name(self, index: int) -> str:
        """Return the name of an image, "NAME[INDEX]"."""
        return f"{self._name}[{index}]"


def has_idx(root: Path) -> bool:
    """Return whether a folder contains idx files."""
    return any(root.glob("*-images-idx3-ubyte*"))


def open_idx(root: Path, split: Split) -> ArrayImages:
    """Open the idx files of a folder, under the file names of MNIST.

    The classes are those of Fashion-MNIST if its labels are recognized, else the numbers from 0 on.

    Raises:
        UserError: a file is missing or corrupt, or the numbers of images and labels differ.
    """
    prefix = _IDX_PREFIX[split]
    paths = [_first(root, f"{prefix}-{kind}-ubyte") for kind in ("images-idx3", "labels-idx1")]
    images, labels = (read_idx(path) for path in paths)
    if len(images) != len(labels):
        raise UserError(f"{paths[0]} contains {len(images)} images, but {paths[1]} contains {len(labels)} labels")
    fashion = root == SAMPLE or hashlib.sha256(labels.tobytes()).hexdigest() in _FASHION_MNIST_LABELS
    classes = FASHION_MNIST_CLASSES if fashion else [str(i) for i in range(int(labels.max(initial=0)) + 1)]
    return ArrayImages(images, labels.tolist(), classes, str(paths[0]))


def _first(root: Path, name: str) -> Path:
    for path in (root / f"{name}.gz", root / name):
        if path.exists():
            return path
    raise UserError(f"{root} has no file {name} or {name}.gz")


def open_torchvision(name: str, split: Split) -> ArrayImages:
    """Open one of torchvision's small datasets, which is downloaded to ~/.cache/fastvit if it is missing.

    Raises:
        UserError: the name is unknown, or the download failed.
    """
    from torchvision import datasets

    if name not in TORCHVISION_SETS:
        raise unknown_name("torchvision dataset", f"torch/{name}", [f"torch/{known}" for known in TORCHVISION_SETS])
    cache = Path.home() / ".cache" / "fastvit"
    try:
        data = getattr(datasets, name)(cache, train=split == "train", download=True)
    except (OSError, RuntimeError) as error:
        raise UserError(
            f"cannot download torch/{name} ({error}); put its files into {cache}, or give a folder that contains them"
        ) from error
    return ArrayImages(np.asarray(data.data), list(data.targets), data.classes, f"torch/{name}/{split}")
