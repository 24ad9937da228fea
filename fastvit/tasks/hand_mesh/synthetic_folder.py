"""A dataset of synthetic hands in FreiHAND's layout, written by `fastvit synth hands`."""

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
from fastvit.synthetic.folder import README, check_wanted, dataset_folder
from fastvit.tasks.hand_mesh.camera import project
from fastvit.tasks.hand_mesh.freihand import HAND, PARTS
from fastvit.tasks.hand_mesh.hand_file import HandArrays, read_hand, save_hand
from fastvit.tasks.hand_mesh.skeleton import ROOT
from fastvit.tasks.hand_mesh.synthetic import HandMaker, SyntheticHand

SIZES = 64, 1024
# Pictures for evaluation; means of more move little, and aligning hands and comparing their meshes takes time.
MOST_TO_EVALUATE = 500
_TITLE = "# Synthetic hands"
_KINDS = ("K", "mano", "scale", "verts", "xyz")
_LEFT = {HAND, *PARTS.values(), *(f"{part}_{kind}.json" for part in PARTS.values() for kind in _KINDS)}
_QUALITY = 92  # of JPEG
_DIGITS = 6  # micrometres


def write_hands(
    folder: Path,
    images: int = 1000,
    size: int = 224,
    seed: int = 0,
    hand: str = "procedural",
    num_workers: int | None = None,
    overwrite: bool = False,
) -> dict[str, int]:
    """Write images of a synthetic hand with cameras, joints, vertices and parameters, in FreiHAND's layout.

    The same arguments give the same pictures on the same kind of machine, with any number of workers; a picture follows
    from seed, size, hand and its place alone. The folder appears when all is written.

    Args:
        folder: to make; may be there if it is empty.
        images: training pictures; a fifth as many, from 1 to 500, for evaluation, whose backgrounds are of the sample's
            test split.
        size: side of a picture in pixels.
        seed: of everything random.
        hand: as in `fastvit.tasks.hand_mesh.hand_file.read_hand`.
        num_workers: processes that make pictures; 0 makes them here, None takes one a core but one.
        overwrite: replace synthetic hands that are in the folder.

    Returns:
        Pictures by part ("training", "evaluation").

    Raises:
        UserError: an argument makes no sense, there is no such hand, or the folder holds other things or cannot be
            written.
    """
    check_wanted(images, size, SIZES, seed)
    arrays = read_hand(hand)
    command = f"fastvit synth hands DIR --images {images} --size {size} --seed {seed} --hand {arrays.name}"
    counts = dict(zip(PARTS, (images, min(max(1, images // 5), MOST_TO_EVALUATE)), strict=True))
    with dataset_folder(folder, overwrite, "hands", (_TITLE, *TITLES), _LEFT) as part:
        save_hand(arrays, part / HAND)
        for split, count in counts.items():
            _write_part(part, _MadeHands(arrays, split, count, size, seed), num_workers)
        (part / README).write_text(_readme(command, arrays, counts), encoding="utf-8")
    return {PARTS[split]: count for split, count in counts.items()}


class _MadeHands(Dataset[SyntheticHand]):
    """Pictures by their place; a DataLoader makes them in several processes."""

    def __init__(self, hand: HandArrays, split: Split, count: int, size: int, seed: int) -> None:
        self.split, self.count, self._seed = split, count, seed
        self._maker = HandMaker(hand, open_images("sample", split), size)

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> SyntheticHand:
        place = list(PARTS).index(self.split)
        return self._maker.make(np.random.default_rng(seed_of(self._seed, place, index)))


def _write_part(root: Path, pictures: _MadeHands, num_workers: int | None) -> None:
    name = PARTS[pictures.split]
    rgb, mask = root / name / "rgb", root / name / "mask"
    rgb.mkdir(parents=True)
    mask.mkdir()
    loader = DataLoader(pictures, batch_size=None, **loader_settings(num_workers))
    shown = track(loader, f"{name} hands", len(pictures))
    with ExitStack() as stack:
        lists = {kind: stack.enter_context(_JsonList(root / f"{name}_{kind}.json")) for kind in _KINDS}
        for index, made in enumerate(shown):
            Image.fromarray(made.image).save(rgb / f"{index:08d}.jpg", quality=_QUALITY)
            Image.fromarray(made.mask).save(mask / f"{index:08d}.jpg", quality=_QUALITY)
            for kind, values in _annotations(made).items():
                lists[kind].add(values)


def _annotations(made: SyntheticHand) -> dict[str, Any]:
    """By kind of file, as FreiHAND has it."""
    (place,) = project(made.joints[ROOT : ROOT + 1], made.intrinsics)
    scale = made.intrinsics[0, 0] / made.joints[ROOT, 2]
    return {
        "K": made.intrinsics.tolist(),
        "mano": [_rounded(np.concatenate([made.pose, made.shape, place, [scale]]))],
        "scale": round(float(np.linalg.norm(made.joints[ROOT + 1] - made.joints[ROOT])), _DIGITS),
        "verts": _rounded(made.vertices),
        "xyz": _rounded(made.joints),
    }


def _rounded(values: np.ndarray) -> Any:
    return values.round(_DIGITS).tolist()


class _JsonList:
    """A JSON list in a file, written an entry at a time."""

    def __init__(self, path: Path) -> None:
        self._path, self._first = path, True

    def __enter__(self) -> _JsonList:
        self._file = self._path.open("w", encoding="utf-8")
        self._file.write("[")
        return self

    def add(self, value: Any) -> None:
        """Another entry."""
        self._file.write(("" if self._first else ", ") + json.dumps(value))
        self._first = False

    def __exit__(self, *_: object) -> None:
        self._file.write("]")
        self._file.close()


def _readme(command: str, hand: HandArrays, counts: dict[Split, int]) -> str:
    """What a person should know who finds the folder."""
    lines = "\n".join(f"- `{PARTS[split]}`: {count:,} pictures" for split, count in counts.items())
    license_text = (SAMPLE / "LICENSE").read_text(encoding="utf-8")
    return f"""{_TITLE}

Images of a synthetic hand ({hand.name}) in random poses, shapes, skin tones and lights in front of blurred scenes of
Fashion-MNIST items, written by

    {command}

{lines}

The layout is FreiHAND's: `PART/rgb/*.jpg`, `PART/mask/*.jpg`, and lists with an entry for each picture: `PART_K.json`
(camera), `PART_xyz.json` (21 joints, meters), `PART_verts.json` (vertices, meters), `PART_mano.json` (48 angles, shape
coefficients, place of the root joint in the picture, pixels a meter there), `PART_scale.json` (length of the middle
finger's first bone, meters). `{HAND}` is the hand model. Nobody's hand was photographed or scanned for it.

The items are taken from Fashion-MNIST by Zalando SE, under this license:

{license_text[license_text.index("The MIT License") :]}"""
