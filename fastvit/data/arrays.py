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
    """Images in memory, uint8 (N, H, W) gray or (N, H, W, 3)."""

    def __init__(self, images: np.ndarray, labels: Sequence[int], classes: Sequence[str], name: str) -> None:
        self._images, self._name = images, name
        self.labels = [int(label) for label in labels]
        self.classes = tuple(classes)

    def __len__(self) -> int:
        return len(self._images)

    def image(self, index: int) -> Image.Image:
        return to_rgb(Image.fromarray(self._images[index]))

    def name(self, index: int) -> str:
        return f"{self._name}[{index}]"


def has_idx(root: Path) -> bool:
    """Whether a folder holds idx files."""
    return any(root.glob("*-images-idx3-ubyte*"))


def open_idx(root: Path, split: Split) -> ArrayImages:
    """The images of idx files, as MNIST and sets of its form have them.

    Raises:
        UserError: a file is missing or damaged, or there are not as many labels as images.
    """
    prefix = _IDX_PREFIX[split]
    paths = [_first(root, f"{prefix}-{kind}-ubyte") for kind in ("images-idx3", "labels-idx1")]
    images, labels = (read_idx(path) for path in paths)
    if len(images) != len(labels):
        raise UserError(f"{paths[0]} has {len(images)} images, {paths[1]} {len(labels)} labels")
    fashion = root == SAMPLE or hashlib.sha256(labels.tobytes()).hexdigest() in _FASHION_MNIST_LABELS
    classes = FASHION_MNIST_CLASSES if fashion else [str(i) for i in range(int(labels.max(initial=0)) + 1)]
    return ArrayImages(images, labels.tolist(), classes, str(paths[0]))


def _first(root: Path, name: str) -> Path:
    for path in (root / f"{name}.gz", root / name):
        if path.exists():
            return path
    raise UserError(f"{root} has no file {name} or {name}.gz")


def open_torchvision(name: str, split: Split) -> ArrayImages:
    """One of torchvision's small sets, downloaded to ~/.cache/fastvit if it is not there.

    Raises:
        UserError: there is no such set, or it cannot be had.
    """
    from torchvision import datasets

    if name not in TORCHVISION_SETS:
        raise unknown_name("torchvision dataset", f"torch/{name}", [f"torch/{known}" for known in TORCHVISION_SETS])
    cache = Path.home() / ".cache" / "fastvit"
    try:
        data = getattr(datasets, name)(cache, train=split == "train", download=True)
    except (OSError, RuntimeError) as error:
        raise UserError(
            f"cannot download torch/{name} ({error}); put its files into {cache}, or give a folder that has them"
        ) from error
    return ArrayImages(np.asarray(data.data), list(data.targets), data.classes, f"torch/{name}/{split}")
