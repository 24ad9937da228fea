"""FreiHAND's layout (arXiv 1909.04349), which `fastvit synth hands` writes too.

Images are training/rgb/00000000.jpg, ... and evaluation/rgb/.... There may be several training images for each
annotation (the same hands on other backgrounds: 130,240 for 32,560). Each part has the files PART_K.json (camera),
PART_xyz.json (21 joints, in meters, on the camera's axes), PART_verts.json (vertices), PART_mano.json (48 angles from
the mean pose, 10 shape coefficients, position of the root joint in the image, scale) and PART_scale.json (length of the
middle finger's first bone, in meters).
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
# File of the hand model of the annotations, if the folder contains one.
HAND = "hand.npz"
_GROUND_TRUTH = ("xyz", "verts", "mano")
_POSE, _SHAPE = 48, 10


@dataclass(frozen=True)
class HandGroundTruth:
    """Ground truth of one image, in meters on the camera's axes.

    Attributes:
        intrinsics: (3, 3) camera matrix, in pixels.
        joints: (21, 3) joints in FreiHAND's order.
        vertices: (V, 3) vertices of the mesh.
        pose: (48,) axis-angle, for the 15 joints relative to the hand model's mean pose; None if it is not known.
        shape: (10,) shape coefficients; None if they are not known.
        side: "right" or "left".
    """

    intrinsics: np.ndarray
    joints: np.ndarray
    vertices: np.ndarray
    pose: np.ndarray | None
    shape: np.ndarray | None
    side: Side


class HandImages:
    """Images of hands in FreiHAND's layout; annotations are read on access.

    Attributes:
        root: folder of the dataset.
        part: "training" or "evaluation".
        vertices: number of vertices of each mesh.
        hand: hand model of the annotations; None if only the number of vertices was given.
        has_ground_truth: true if there are annotations besides the cameras; FreiHAND's first download has none for
            its evaluation images.
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
        """Return the path of an image."""
        return str(self._images[index])

    def image(self, index: int) -> Image.Image:
        """Decode an image as RGB."""
        return read_image(self._images[index])

    def intrinsics(self, index: int) -> np.ndarray:
        """Return the camera matrix of an image, (3, 3), in pixels."""
        return self._files["K"].array(index % len(self._files["K"]), (3, 3))

    def ground_truth(self, index: int) -> HandGroundTruth:
        """Return the ground truth of an image.

        Raises:
            UserError: there is no ground truth, or an annotation is corrupt; the message gives the file and the entry.
        """
        if not self.has_ground_truth:
            raise UserError(
                f"{self.root} has no {self.part}_xyz.json: these images have no ground truth but the camera"
            )
        row = index % len(self._files["K"])
        pose = shape = None
        if "mano" in self._files:
            parameters = np.asarray(self._files["mano"].array(row, (1, _POSE + _SHAPE + 3)))[0]
            pose, shape = parameters[:_POSE], parameters[_POSE : _POSE + _SHAPE]
        return HandGroundTruth(
            intrinsics=self.intrinsics(index),
            joints=self._files["xyz"].array(row, (len(JOINTS), 3)),
            vertices=self._files["verts"].array(row, (self.vertices, 3)),
            pose=pose,
            shape=shape,
            side="right",
        )


def open_freihand(source: str | Path, split: Split, hand: str | None = None, vertices: int | None = None) -> HandImages:
    """Open the images of a folder in FreiHAND's layout.

    Args:
        source: path of the folder.
        split: "train" for its training images, "test" for its evaluation images.
        hand: hand model, see `fastvit.tasks.hand_mesh.hand_file.read_hand`; None uses hand.npz in the folder, else
            MANO.
        vertices: number of vertices of a trained model's hand, if the hand model itself is not needed.

    Raises:
        UserError: the folder, files in it, or the hand model are missing (the message lists them), or the files do not
            fit each other.
    """
    root, part = user_path(source), PARTS[split]
    if not root.is_dir():
        raise UserError(
            f"the folder {root.absolute()} does not exist; write synthetic hands with: fastvit synth hands {root}"
        )
    files = {kind: root / f"{part}_{kind}.json" for kind in ("K", *_GROUND_TRUTH)}
    image_folder = root / part / "rgb"
    needed = [files["K"]] + [files[kind] for kind in ("xyz", "verts") if part == "training" or files["xyz"].is_file()]
    missing = [str(path) for path in needed if not path.is_file()]
    if not image_folder.is_dir():
        missing.append(f"{image_folder}/")
    if missing:
        raise UserError(f"{root} is not a complete folder in FreiHAND's layout; missing: {', '.join(missing)}")
    known = None if vertices else hand_of(root, hand)
    rows = {
        kind: JsonRows(path)
        for kind, path in files.items()
        if path.is_file() and (kind == "K" or files["xyz"].is_file())
    }
    images = sorted(path for path in image_folder.iterdir() if path.suffix.lower() in (".jpg", ".jpeg", ".png"))
    _check_counts(
        image_folder, {files[kind]: len(found) for kind, found in rows.items()}, [path.stem for path in images]
    )
    count = len(known.template) if known else vertices or 0
    if "verts" in rows and (there := len(rows["verts"][0])) != count:
        raise UserError(
            f"the hands of {root} have {there} vertices, but {known.name if known else 'the hand of the model'} has "
            f"{count}: set hand_mesh.hand to the hand model of these annotations"
        )
    return HandImages(root, part, count, known, rows, images)


def hand_of(source: str | Path, hand: str | None = None) -> HandArrays:
    """Return the hand model of a folder's annotations.

    Args:
        source: folder in FreiHAND's layout.
        hand: hand model, see `fastvit.tasks.hand_mesh.hand_file.read_hand`; None uses hand.npz in the folder, else
            MANO.
    """
    own = user_path(source) / HAND
    return read_hand(hand or (own if own.is_file() else "mano"))


def _check_counts(image_folder: Path, lengths: dict[Path, int], names: Iterable[str]) -> None:
    """Check that all files have the same number of entries, and that images are numbered without gaps."""
    camera, *_ = lengths
    count = lengths[camera]
    if count == 0:
        raise UserError(f"{camera} contains no entries")
    if others := [f"{path.name} has {length}" for path, length in lengths.items() if length != count]:
        raise UserError(
            f"{camera.name} has {count:,} entries, but {', '.join(others)}: the files of {image_folder.parent} "
            "do not fit each other"
        )
    there = set(names)
    total = max(-(-len(there) // count), 1) * count
    if gaps := [f"{index:08d}.jpg" for index in range(total) if f"{index:08d}" not in there]:
        shown = ", ".join(gaps[:10]) + (f" and {len(gaps) - 10:,} more" if len(gaps) > 10 else "")
        raise UserError(
            f"{image_folder} has {len(there):,} images for {count:,} annotations; expected a multiple of {count:,}, "
            f"numbered from 00000000.jpg on; missing: {shown}"
        )
    if len(there) != total:
        raise UserError(f"{image_folder} has images whose names do not follow 00000000.jpg, 00000001.jpg, ...")
