"""Datasets of synthetic hands in FreiHAND's layout, for `fastvit synth hands`."""

from __future__ import annotations

import json
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from fastvit.console import track
from fastvit.data.arrays import SAMPLE
from fastvit.data.load import open_images
from fastvit.data.sampling import seed_of
from fastvit.data.split_names import Split
from fastvit.data.workers import loader_settings
from fastvit.renames import TITLES
from fastvit.synthetic.folder import README, check_arguments, dataset_folder
from fastvit.tasks.hand_mesh.camera import project
from fastvit.tasks.hand_mesh.freihand import HAND, PARTS
from fastvit.tasks.hand_mesh.hand_file import HandArrays, read_hand, save_hand
from fastvit.tasks.hand_mesh.skeleton import ROOT
from fastvit.tasks.hand_mesh.synthetic import HandMaker, SyntheticHand

SIZES = 64, 1024
# Largest number of evaluation images; more change the means little, and the metrics of meshes take time.
MOST_TO_EVALUATE = 500
_TITLE = "# Synthetic hands"
_KINDS = ("K", "mano", "scale", "verts", "xyz")
_LEFT = {HAND, *PARTS.values(), *(f"{part}_{kind}.json" for part in PARTS.values() for kind in _KINDS)}
_QUALITY = 92  # of JPEG
_DIGITS = 6  # of meters: micrometers


def write_hands(
    folder: Path,
    images: int = 1000,
    size: int = 224,
    seed: int = 0,
    hand: str = "procedural",
    num_workers: int | None = None,
    overwrite: bool = False,
) -> dict[str, int]:
    """Write images of synthetic hands with cameras, joints, vertices and parameters, in FreiHAND's layout.

    The same arguments give the same images on the same kind of machine, with any number of workers. An image depends on
    seed, size, hand and its index only. The folder is created after all files are written.

    Args:
        folder: folder to write; it may exist if it is empty.
        images: number of training images; a fifth of it, 1 to 500, are added for evaluation, with backgrounds from the
            sample's test split.
        size: height and width of the images, in pixels, 64 to 1024.
        seed: random seed, at least 0.
        hand: hand model, see `fastvit.tasks.hand_mesh.hand_file.read_hand`.
        num_workers: processes that create images; 0 uses this process, None uses one per CPU core but one.
        overwrite: replace synthetic hands in the folder.

    Returns:
        Number of images by part ("training", "evaluation").

    Raises:
        UserError: an argument is out of range, the hand model cannot be read, or the folder contains other files or
            cannot be written.
    """
    check_arguments(images, size, SIZES, seed)
    arrays = read_hand(hand)
    command = f"fastvit synth hands DIR --images {images} --size {size} --seed {seed} --hand {arrays.name}"
    counts = dict(zip(PARTS, (images, min(max(1, images // 5), MOST_TO_EVALUATE)), strict=True))
    with dataset_folder(folder, overwrite, "hands", (_TITLE, *TITLES), _LEFT) as part:
        save_hand(arrays, part / HAND)
        for split, count in counts.items():
            _write_part(part, _SyntheticHands(arrays, split, count, size, seed), num_workers)
        (part / README).write_text(_readme(command, arrays, counts), encoding="utf-8")
    return {PARTS[split]: count for split, count in counts.items()}


class _SyntheticHands(Dataset[SyntheticHand]):
    """Dataset of synthetic hands by index, so that a DataLoader can create them in several processes."""

    def __init__(self, hand: HandArrays, split: Split, count: int, size: int, seed: int) -> None:
        self.split, self.count, self._seed = split, count, seed
        self._maker = HandMaker(hand, open_images("sample", split), size)

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> SyntheticHand:
        split_index = list(PARTS).index(self.split)
        return self._maker.make(np.random.default_rng(seed_of(self._seed, split_index, index)))


def _write_part(root: Path, dataset: _SyntheticHands, num_workers: int | None) -> None:
    name = PARTS[dataset.split]
    rgb, mask = root / name / "rgb", root / name / "mask"
    rgb.mkdir(parents=True)
    mask.mkdir()
    loader = DataLoader(dataset, batch_size=None, **loader_settings(num_workers))
    shown = track(loader, f"{name} hands", len(dataset))
    with ExitStack() as stack:
        lists = {kind: stack.enter_context(_JsonList(root / f"{name}_{kind}.json")) for kind in _KINDS}
        for index, made in enumerate(shown):
            Image.fromarray(made.image).save(rgb / f"{index:08d}.jpg", quality=_QUALITY)
            Image.fromarray(made.mask).save(mask / f"{index:08d}.jpg", quality=_QUALITY)
            for kind, values in _annotations(made).items():
                lists[kind].add(values)


def _annotations(made: SyntheticHand) -> dict[str, Any]:
    """Return the annotations of an image by kind of file, in FreiHAND's layout."""
    (position,) = project(made.joints[ROOT : ROOT + 1], made.intrinsics)
    scale = made.intrinsics[0, 0] / made.joints[ROOT, 2]
    return {
        "K": made.intrinsics.tolist(),
        "mano": [_rounded(np.concatenate([made.pose, made.shape, position, [scale]]))],
        "scale": round(float(np.linalg.norm(made.joints[ROOT + 1] - made.joints[ROOT])), _DIGITS),
        "verts": _rounded(made.vertices),
        "xyz": _rounded(made.joints),
    }


def _rounded(values: np.ndarray) -> Any:
    return values.round(_DIGITS).tolist()


class _JsonList:
    """Writer of a JSON list, one entry at a time."""

    def __init__(self, path: Path) -> None:
        self._path, self._first = path, True

    def __enter__(self) -> _JsonList:
        self._file = self._path.open("w", encoding="utf-8")
        self._file.write("[")
        return self

    def add(self, value: Any) -> None:
        """Append an entry."""
        self._file.write(("" if self._first else ", ") + json.dumps(value))
        self._first = False

    def __exit__(self, *_: object) -> None:
        self._file.write("]")
        self._file.close()


def _readme(command: str, hand: HandArrays, counts: dict[Split, int]) -> str:
    """Return the README of the folder."""
    lines = "\n".join(f"- `{PARTS[split]}`: {count:,} images" for split, count in counts.items())
    license_text = (SAMPLE / "LICENSE").read_text(encoding="utf-8")
    return f"""{_TITLE}

Images of a synthetic hand ({hand.name}) in random poses, shapes, skin tones and lights in front of blurred scenes of
Fashion-MNIST items, written by

    {command}

{lines}

The layout is FreiHAND's: `PART/rgb/*.jpg`, `PART/mask/*.jpg`, and lists with an entry for each image: `PART_K.json`
(camera), `PART_xyz.json` (21 joints, meters), `PART_verts.json` (vertices, meters), `PART_mano.json` (48 angles, shape
coefficients, position of the root joint in the image, pixels per meter there), `PART_scale.json` (length of the middle
finger's first bone, meters). `{HAND}` is the hand model. The images contain no photographs or scans of hands.

The items are taken from Fashion-MNIST by Zalando SE, under this license:

{license_text[license_text.index("The MIT License") :]}"""
