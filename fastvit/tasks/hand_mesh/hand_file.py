"""Hands as files: MANO's, which everyone fetches for oneself, and the package's own. Needs no torch.

MANO (arXiv 2201.02610) may not be passed on; its pickles are read by `fastvit.tasks.hand_mesh.mano_pickle`, without
running anything of them.
"""

from __future__ import annotations

import functools
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np

from fastvit.errors import UserError
from fastvit.files import atomic, cache_folder, user_path
from fastvit.tasks.hand_mesh.mano_pickle import read_pickle
from fastvit.tasks.hand_mesh.skeleton import MANO_TIPS, PARENTS, TURNING

Side = Literal["right", "left"]
# Where MANO's files are looked for when none is named.
MANO_FOLDER = cache_folder() / "mano"
PROCEDURAL = "procedural"
MANO_VERTICES = 778
_FREE = 3 * (TURNING - 1)  # numbers of a pose without the turn of the whole hand, as axis-angle
_WHERE = (
    "MANO may not be passed on: register at https://mano.is.tue.mpg.de, download 'Models & Code', and put "
    f"MANO_RIGHT.pkl and MANO_LEFT.pkl from its models folder into {MANO_FOLDER}, or name the file"
)


@dataclass(frozen=True)
class HandArrays:
    """A hand that can be posed and shaped, at rest; float64, meters.

    Attributes:
        name: "MANO_RIGHT", "procedural", ....
        side: "right" or "left".
        template: (V, 3) vertices of the mean hand.
        shape_directions: (V, 3, S) how they move with a unit of each shape coefficient.
        pose_directions: (V, 3, 135) how they move with the rotations of the 15 joints, less identity, row by row.
        joint_regressor: (16, V) joints as sums of vertices.
        weights: (V, 16) how much each vertex follows each joint; rows sum to 1.
        faces: (F, 3) int64, counterclockwise from outside.
        pose_mean: (45,) axis-angle of the 15 joints that a pose of zeros stands for, where the mean pose is meant.
        pose_components: (45, 45) principal components of poses, a row each.
        tips: (5,) int64, the vertices taken for the tips of the fingers, from the thumb on.
    """

    name: str
    side: Side
    template: np.ndarray
    shape_directions: np.ndarray
    pose_directions: np.ndarray
    joint_regressor: np.ndarray
    weights: np.ndarray
    faces: np.ndarray
    pose_mean: np.ndarray
    pose_components: np.ndarray
    tips: np.ndarray

    def mirrored(self) -> HandArrays:
        """The other side's hand: the mirror image in the plane x = 0, turned inside in, for poses mirrored likewise."""
        flip = np.array([-1.0, 1.0, 1.0])
        # A rotation mirrored is F R F; its entries change sign where just one index is x.
        signs = np.tile(np.outer(flip, flip).ravel(), TURNING - 1)
        turn = np.tile([1.0, -1.0, -1.0], TURNING - 1)  # axes are pseudovectors
        return replace(
            self,
            name=f"{self.name} mirrored",
            side="left" if self.side == "right" else "right",
            template=self.template * flip,
            shape_directions=self.shape_directions * flip[:, None],
            pose_directions=self.pose_directions * flip[:, None] * signs,
            faces=self.faces[:, ::-1].copy(),
            pose_mean=self.pose_mean * turn,
            pose_components=self.pose_components * turn,
        )


def read_hand(source: str | Path) -> HandArrays:
    """A hand by name or file.

    Args:
        source: "procedural"; "mano" or "mano_left", looked for in ~/.cache/fastvit/mano; or a file: MANO's .pkl, or
            .npz with the names that MANO uses (v_template, shapedirs, posedirs, J_regressor, weights, f,
            hands_mean, hands_components; of our own also tips, name and side).

    Raises:
        UserError: there is no such file (the message says where to get MANO), or it is damaged, or no hand.
    """
    text = str(source)
    if text == PROCEDURAL:
        return procedural_hand()
    if text.lower() in ("mano", "mano_right", "mano_left"):
        side = "LEFT" if text.lower().endswith("left") else "RIGHT"
        places = [MANO_FOLDER / f"MANO_{side}{suffix}" for suffix in (".pkl", ".npz")]
        path = next((place for place in places if place.is_file()), places[0])
    else:
        path = user_path(source)
    if not path.is_file():
        raise UserError(f"there is no hand model {path}; {_WHERE}; --hand procedural takes the package's own hand")
    if path.suffix.lower() == ".pkl":
        return _checked(read_pickle(path), path)
    if path.suffix.lower() != ".npz":
        raise UserError(f"{path}: hand models are MANO's .pkl files, or .npz files")
    try:
        with np.load(path, allow_pickle=False) as content:
            return _checked({name: content[name] for name in content.files}, path)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"{path} cannot be read: {error}") from error


@functools.cache
def procedural_hand() -> HandArrays:
    """The package's own right hand, made by scripts/make_hand.py: no scan, and not MANO's shape."""
    return read_hand(Path(__file__).parent / "procedural_hand.npz")


def save_hand(hand: HandArrays, path: Path) -> None:
    """Write a hand as compressed .npz, in float32, under MANO's names.

    Raises:
        UserError: the file cannot be written.
    """
    arrays = {key: getattr(hand, field) for field, key in _KEYS.items()}
    single = {key: value.astype(np.float32) if value.dtype == np.float64 else value for key, value in arrays.items()}
    with atomic(path) as part, part.open("wb") as file:
        np.savez_compressed(file, **cast(Any, single), tips=hand.tips, name=hand.name, side=hand.side)


_KEYS = {
    "template": "v_template",
    "shape_directions": "shapedirs",
    "pose_directions": "posedirs",
    "joint_regressor": "J_regressor",
    "weights": "weights",
    "faces": "f",
    "pose_mean": "hands_mean",
    "pose_components": "hands_components",
}


def _checked(content: Mapping[str, Any], path: Path) -> HandArrays:
    """The arrays of a file, if they are those of a hand."""
    if missing := [key for key in _KEYS.values() if key not in content]:
        raise UserError(f"{path} is no hand model: it has no {', '.join(missing)}")
    arrays: dict[str, np.ndarray] = {}
    for field, key in _KEYS.items():
        try:
            arrays[field] = np.asarray(content[key], np.int64 if field == "faces" else np.float64)
        except (TypeError, ValueError) as error:
            raise UserError(f"{path}: {key} is no array of numbers") from error
    vertices = len(arrays["template"])
    shapes = arrays["shape_directions"].shape[-1] if arrays["shape_directions"].ndim == 3 else 0
    expected = {
        "template": (vertices, 3),
        "shape_directions": (vertices, 3, shapes),
        "pose_directions": (vertices, 3, 9 * (TURNING - 1)),
        "joint_regressor": (TURNING, vertices),
        "weights": (vertices, TURNING),
        "faces": (len(arrays["faces"]), 3),
        "pose_mean": (_FREE,),
        "pose_components": (_FREE, _FREE),
    }
    for field, shape in expected.items():
        if arrays[field].shape != shape:
            raise UserError(f"{path}: {_KEYS[field]} has shape {arrays[field].shape}, that of a hand is {shape}")
        if not np.isfinite(arrays[field]).all():
            raise UserError(f"{path}: {_KEYS[field]} has values that are not finite")
    total = arrays["weights"].sum(1, keepdims=True)
    if not np.allclose(total, 1, atol=1e-3):
        raise UserError(f"{path}: rows of weights must sum to 1, they sum to {total.min():.3g} to {total.max():.3g}")
    arrays["weights"] = arrays["weights"] / total  # of files in float32 they do but for rounding
    if "kintree_table" in content:
        parents = tuple(np.asarray(content["kintree_table"])[0].astype(np.int64).tolist())
        if parents[1:] != PARENTS[1:]:
            raise UserError(f"{path}: kintree_table {list(parents)} is not that of a hand, {list(PARENTS)}")
    tips = content.get("tips", MANO_TIPS if vertices == MANO_VERTICES else None)
    if tips is None:
        raise UserError(
            f"{path} has {vertices} vertices, MANO's {MANO_VERTICES}: add tips, the vertices at the fingertips"
        )
    tips = np.asarray(tips, np.int64)
    for name, index in (("tips", tips), ("f", arrays["faces"])):
        if not vertices or index.min() < 0 or index.max() >= vertices:
            raise UserError(f"{path}: {name} names vertices that are not among the {vertices}")
    if tips.shape != (5,):
        raise UserError(f"{path}: tips has shape {tips.shape}, five fingers have (5,)")
    side = str(content.get("side", "left" if "left" in path.name.lower() else "right"))
    if side not in ("right", "left"):
        raise UserError(f"{path}: side is {side!r}, not right or left")
    return HandArrays(name=str(content.get("name", path.stem)), side=cast(Side, side), tips=tips, **arrays)
