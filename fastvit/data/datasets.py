"""Opening labelled images by a name or a path: the embedded sample, idx files, image folders, torchvision's sets."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
import torch
from PIL import Image
from timm.data.readers import create_reader
from torch import Tensor
from torch.utils.data import Dataset

from fastvit.data.idx import read_idx
from fastvit.data.imagenet import imagenet_classes, imagenet_synsets
from fastvit.data.images import read_image, to_rgb
from fastvit.data.sampling import PADDING, Draw, seeded
from fastvit.data.transforms import Transform
from fastvit.errors import UserError

Split = Literal["train", "test"]
# The class of what is not to be counted, as torch's cross entropy has it.
IGNORED = -100
SAMPLE = Path(__file__).parent / "fashion_mnist_sample"
FASHION_MNIST_CLASSES = (
    *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
    *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
)
_IDX_PREFIX = {"train": "train", "test": "t10k"}
_FOLDER_NAMES = {"train": ("train", "training"), "test": ("val", "validation", "valid", "test", "testing")}
# MNIST and Fashion-MNIST files have the same names: the labels tell them apart. SHA-256 of the uncompressed labels.
_FASHION_MNIST_LABELS = frozenset(
    {
        "657fbd221bfc9f4198cc14b5619cc33ec57c58dd0e47af4d99d6650759e869a7",
        "3d0e6c6ea990b53b6f8f500a41cac93881d981b315f84578b7d915342ade01e9",
    }
)


class LabelledImages(Protocol):
    """Labelled images before any transform: what a dataset reads from."""

    @property
    def classes(self) -> tuple[str, ...]: ...

    @property
    def labels(self) -> Sequence[int]: ...

    def __len__(self) -> int: ...

    def image(self, index: int) -> Image.Image: ...

    def name(self, index: int) -> str: ...


class ArrayImages:
    """Images in memory, uint8 (N, H, W) grey or (N, H, W, 3)."""

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


class FolderImages:
    """A folder a class, found through timm's reader.

    Args:
        root: folder with a folder a class in it.
        classes: of a model, which the labels are to follow; folders may be missing, but none may be another class.
            ImageNet's folders, named by WordNet ids, fit the model with ImageNet's class names.

    Raises:
        UserError: there are no such folders, or classes that the model does not know.
    """

    def __init__(self, root: Path, classes: Sequence[str] | None = None) -> None:
        try:
            reader = create_reader("", root=str(root))
        except (RuntimeError, AssertionError) as error:
            raise UserError(f"there are no images in folders of {root}, one folder a class: {error}") from error
        folders = sorted(reader.class_to_idx, key=reader.class_to_idx.__getitem__)
        self.classes = tuple(classes or folders)
        names = imagenet_synsets() if classes == imagenet_classes() and folders[0] not in self.classes else self.classes
        if unknown := [name for name in folders if name not in names]:
            raise UserError(
                f"{root} has classes that the model does not know ({shortened(unknown)}); it knows {shortened(names)}"
            )
        self._samples: list[tuple[str, int]] = reader.samples
        index = [names.index(name) for name in folders]
        self.labels = [index[label] for _, label in self._samples]

    def __len__(self) -> int:
        return len(self._samples)

    def image(self, index: int) -> Image.Image:
        return read_image(self._samples[index][0])

    def name(self, index: int) -> str:
        return self._samples[index][0]


class ImageDataset(Dataset[tuple[Tensor, int]]):
    """Images as (C, H, W) uint8 pixels with their class index.

    A Draw is transformed with its own seed; PADDING is a black image of the class IGNORED, which no metric counts.
    """

    def __init__(self, pictures: LabelledImages, pixels: Transform) -> None:
        self.pictures = pictures
        self.pixels = pixels

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, key: int | Draw) -> tuple[Tensor, int]:
        if isinstance(key, Draw):
            with seeded(key.seed):
                return self._item(key.image)
        if key == PADDING:
            return torch.zeros_like(self._item(0)[0]), IGNORED
        return self._item(key)

    def _item(self, index: int) -> tuple[Tensor, int]:
        return self.pixels(self.pictures.image(index)), self.pictures.labels[index]


def open_images(source: str | Path, split: Split, classes: Sequence[str] | None = None) -> LabelledImages:
    """Labelled images of one split.

    Args:
        source: "sample" (the embedded part of Fashion-MNIST); a folder with idx files; a folder of images, a folder a
            class, with train and val (or validation, test) in it; or "torch/NAME" for a torchvision dataset, which is
            downloaded to ~/.cache/fastvit if it is not there.
        split: "train", or "test" for the held-out part.
        classes: names that the labels must have, in this order (those of a model); by default the data's own.

    Raises:
        UserError: there is no such data, or its classes are others.
    """
    pictures = _open(str(source), split, classes)
    if classes and tuple(classes) != pictures.classes:
        raise UserError(
            f"the classes of {source} are not those of the model: {shortened(pictures.classes)} against "
            f"{shortened(classes)}"
        )
    return pictures


def shortened(names: Sequence[str]) -> str:
    """How many, and the first of them."""
    return f"{len(names)}: {', '.join(names[:5])}{', ...' if len(names) > 5 else ''}"


def _open(source: str, split: Split, classes: Sequence[str] | None) -> LabelledImages:
    if source == "sample":
        return _open_idx(SAMPLE, split)
    if source.startswith("torch/"):
        return _open_torchvision(source, split)
    root = Path(source).expanduser()
    if not root.is_dir():
        raise UserError(f"there is no folder {root}; give a folder of images, of idx files, sample, or torch/NAME")
    if any(root.glob("*-images-idx3-ubyte*")):
        return _open_idx(root, split)
    folder = next((root / name for name in _FOLDER_NAMES[split] if (root / name).is_dir()), None)
    if folder is None:
        if any((root / name).is_dir() for names in _FOLDER_NAMES.values() for name in names):
            raise UserError(f"{root} has no folder for the {split} split ({' or '.join(_FOLDER_NAMES[split])})")
        if split == "train":
            raise UserError(
                f"{root} needs a folder train and one of {', '.join(_FOLDER_NAMES['test'])}, each with a folder a class"
            )
        folder = root
    return FolderImages(folder, classes)


def _open_idx(root: Path, split: Split) -> ArrayImages:
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


def _open_torchvision(source: str, split: Split) -> ArrayImages:
    from torchvision import datasets

    kind = getattr(datasets, source.removeprefix("torch/"), None)
    known = ("MNIST", "FashionMNIST", "KMNIST", "CIFAR10", "CIFAR100")
    if kind is None or kind.__name__ not in known:
        raise UserError(f"no torchvision dataset {source} is known here; there are torch/{', torch/'.join(known)}")
    cache = Path.home() / ".cache" / "fastvit"
    try:
        data = kind(cache, train=split == "train", download=True)
    except (OSError, RuntimeError) as error:
        raise UserError(
            f"cannot download {source} ({error}); put its files into {cache}, or give a folder that has them"
        ) from error
    return ArrayImages(np.asarray(data.data), list(data.targets), data.classes, source)
