"""FreiHAND's layout (arXiv 1909.04349), and what `fastvit synth hands` writes in it.

training/rgb/00000000.jpg, ..., of which there may be several for each annotation (the same hands on other backgrounds:
130,240 for 32,560), evaluation/rgb/..., and for each of the two NAME_K.json (camera), NAME_xyz.json (21 joints, meters,
camera's axes), NAME_verts.json (vertices), NAME_mano.json (48 angles from the mean pose, 10 shape coefficients, place
of the root in the image, scale) and NAME_scale.json (length of the middle finger's first bone, meters).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image

from fastvit.data.images import read_image
from fastvit.data.split_names import Split
from fastvit.errors import UserError
from fastvit.files import user_path
from fastvit.tasks.hand_mesh.hand_file import HandArrays, Side, read_hand
from fastvit.tasks.hand_mesh.json_rows import JsonRows
from fastvit.tasks.hand_mesh.skeleton import CLASSES, JOINTS

Part = Literal["training", "evaluation"]
PARTS: dict[Split, Part] = {"train": "training", "test": "evaluation"}
# The hand that annotations are of, where the folder brings one.
HAND = "hand.npz"
_TRUTH = ("xyz", "verts", "mano")
_POSE, _SHAPE = 48, 10


@dataclass(frozen=True)
class HandGroundTruth:
    """What is known of one image; meters, the camera's axes.

    Attributes:
        intrinsics: (3, 3) of its camera, pixels.
        joints: (21, 3), FreiHAND's order.
        vertices: (V, 3).
        pose: (48,) axis-angle, that of the 15 joints counted from the hand model's mean; None where it is not known.
        shape: (10,) coefficients; None likewise.
        side: "right" or "left".
    """

    intrinsics: np.ndarray
    joints: np.ndarray
    vertices: np.ndarray
    pose: np.ndarray | None
    shape: np.ndarray | None
    side: Side


class HandImages:
    """Images of hands in FreiHAND's layout; annotations are read when they are asked for.

    Attributes:
        root: the folder.
        part: "training" or "evaluation".
        vertices: of each mesh.
        hand: the hand model that the annotations are of; None where only the number of vertices was asked for.
        has_ground_truth: whether more than the cameras is known, as it is not of FreiHAND's evaluation before its
            release.
    """

    classes = CLASSES

    def __init__(
        self,
        root: Path,
        part: Part,
        vertices: int,
        hand: HandArrays | None,
        files: dict[str, JsonRows],
        images: list[Path],
    ) -> None:
        self.root, self.part, self.vertices, self.hand = root, part, vertices, hand
        self._files, self._images = files, images
        self.has_ground_truth = "xyz" in files

    def __len__(self) -> int:
        return len(self._images)

    def name(self, index: int) -> str:
        return str(self._images[index])

    def image(self, index: int) -> Image.Image:
        return read_image(self._images[index])

    def intrinsics(self, index: int) -> np.ndarray:
        """(3, 3) camera of an image."""
        return self._files["K"].array(index % len(self._files["K"]), (3, 3))

    def ground_truth(self, index: int) -> HandGroundTruth:
        """What is known of an image.

        Raises:
            UserError: nothing is, or an annotation is damaged; the message names file and entry.
        """
        if not self.has_ground_truth:
            raise UserError(f"{self.root} has no {self.part}_xyz.json: of these images nothing but the camera is known")
        row = index % len(self._files["K"])
        pose = shape = None
        if "mano" in self._files:
            numbers = np.asarray(self._files["mano"].array(row, (1, _POSE + _SHAPE + 3)))[0]
            pose, shape = numbers[:_POSE], numbers[_POSE : _POSE + _SHAPE]
        return HandGroundTruth(
            intrinsics=self.intrinsics(index),
            joints=self._files["xyz"].array(row, (len(JOINTS), 3)),
            vertices=self._files["verts"].array(row, (self.vertices, 3)),
            pose=pose,
            shape=shape,
            side="right",
        )


def open_freihand(source: str | Path, split: Split, hand: str | None = None, vertices: int | None = None) -> HandImages:
    """The images of a folder in FreiHAND's layout.

    Args:
        source: the folder.
        split: "train" is its training, "test" its evaluation.
        hand: as in `fastvit.tasks.hand_mesh.hand_file.read_hand`; None for hand.npz in the folder, else MANO's.
        vertices: of the hand of a trained model, where the hand model itself is not needed.

    Raises:
        UserError: the folder, some of its files, or the hand is missing (all that is missing is named), or the files
            do not belong together.
    """
    root, part = user_path(source), PARTS[split]
    if not root.is_dir():
        raise UserError(f"there is no folder {root.absolute()}; make one with: fastvit synth hands {root}")
    files = {kind: root / f"{part}_{kind}.json" for kind in ("K", *_TRUTH)}
    pictures = root / part / "rgb"
    needed = [files["K"]] + [files[kind] for kind in ("xyz", "verts") if part == "training" or files["xyz"].is_file()]
    missing = [str(path) for path in needed if not path.is_file()]
    if not pictures.is_dir():
        missing.append(f"{pictures}/")
    if missing:
        raise UserError(f"{root} is not FreiHAND's layout, or part of it is missing: there is no {', '.join(missing)}")
    known = None if vertices else hand_of(root, hand)
    rows = {
        kind: JsonRows(path)
        for kind, path in files.items()
        if path.is_file() and (kind == "K" or files["xyz"].is_file())
    }
    images = sorted(path for path in pictures.iterdir() if path.suffix.lower() in (".jpg", ".jpeg", ".png"))
    _check_counts(pictures, {files[kind]: len(found) for kind, found in rows.items()}, [path.stem for path in images])
    count = len(known.template) if known else vertices or 0
    if "verts" in rows and (there := len(rows["verts"][0])) != count:
        raise UserError(
            f"the hands of {root} have {there} vertices, {known.name if known else 'that of the model'} has {count}: "
            "use the hand model that they were made with (hand_mesh.hand)"
        )
    return HandImages(root, part, count, known, rows, images)


def hand_of(source: str | Path, hand: str | None = None) -> HandArrays:
    """The hand model that a folder's annotations are of; arguments and errors as in `open_freihand`."""
    own = user_path(source) / HAND
    return read_hand(hand or (own if own.is_file() else "mano"))


def _check_counts(pictures: Path, lengths: dict[Path, int], names: Iterable[str]) -> None:
    """See that files are of as many images as each other, and images numbered without a gap, once or several times."""
    camera, *_ = lengths
    count = lengths[camera]
    if count == 0:
        raise UserError(f"{camera} is empty: there is no image to learn from")
    if others := [f"{path.name} has {length}" for path, length in lengths.items() if length != count]:
        raise UserError(
            f"{camera.name} has {count:,} entries, but {', '.join(others)}: the files of {pictures.parent} "
            "do not belong together"
        )
    there = set(names)
    total = max(-(-len(there) // count), 1) * count
    if gaps := [f"{index:08d}.jpg" for index in range(total) if f"{index:08d}" not in there]:
        shown = ", ".join(gaps[:10]) + (f" and {len(gaps) - 10:,} more" if len(gaps) > 10 else "")
        raise UserError(
            f"{pictures} has {len(there):,} images for {count:,} annotations; it must be once or several times as "
            f"many, numbered from 00000000.jpg on: there is no {shown}"
        )
    if len(there) != total:
        raise UserError(f"{pictures} has images that are not numbered from 00000000.jpg on")
