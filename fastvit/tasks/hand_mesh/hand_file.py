"""Files of hand models: MANO's, which every user must download, and the built-in procedural hand. Needs no torch.

MANO (arXiv 2201.02610) may not be redistributed. Its pickles are read by `fastvit.tasks.hand_mesh.mano_pickle`, which
does not run code from them.
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
# Folder of MANO's files, if no file is given.
MANO_FOLDER = cache_folder() / "mano"
PROCEDURAL = "procedural"
MANO_VERTICES = 778
_FREE = 3 * (TURNING - 1)  # axis-angle values of a pose without the rotation of the hand itself
_WHERE = (
    "MANO may not be redistributed: register at https://mano.is.tue.mpg.de, download 'Models & Code', and put "
    f"MANO_RIGHT.pkl and MANO_LEFT.pkl from its models folder into {MANO_FOLDER}, or give the path of the file"
)


@dataclass(frozen=True)
class HandArrays:
    """Arrays of a hand model in MANO's form, float64, in meters.

    Attributes:
        name: name of the hand, such as "MANO_RIGHT" or "procedural".
        side: "right" or "left".
        template: (V, 3) vertices of the mean hand at rest.
        shape_directions: (V, 3, S) offsets of the vertices per unit of each shape coefficient.
        pose_directions: (V, 3, 135) offsets of the vertices per unit of the 15 joints' rotation matrices minus
            identity, row by row.
        joint_regressor: (16, V) weights that give the joints as sums of vertices.
        weights: (V, 16) skinning weights of each vertex for the joints; rows sum to 1.
        faces: (F, 3) int64 triangles, counterclockwise seen from outside.
        pose_mean: (45,) axis-angle of the 15 joints in the mean pose.
        pose_components: (45, 45) principal components of the poses, one per row.
        tips: (5,) int64, indices of the fingertips' vertices, from the thumb on.
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
        """Return the hand of the other side: mirrored at the plane x = 0, for poses that are mirrored too."""
        flip = np.array([-1.0, 1.0, 1.0])
        # A mirrored rotation is F R F; an entry changes its sign if exactly one of its indices is x.
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
    """Read a hand model by name or file.

    Args:
        source: "procedural"; "mano" or "mano_left", searched for in ~/.cache/fastvit/mano; or a file: MANO's .pkl, or
            .npz with MANO's array names (v_template, shapedirs, posedirs, J_regressor, weights, f, hands_mean,
            hands_components) and, optionally, tips, name and side.

    Raises:
        UserError: the file does not exist (the message says where to get MANO), is corrupt, or is not a hand model.
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
        raise UserError(f"the hand model {path} does not exist; {_WHERE}; --hand procedural uses the built-in hand")
    if path.suffix.lower() == ".pkl":
        return _checked(read_pickle(path), path)
    if path.suffix.lower() != ".npz":
        raise UserError(f"{path} is not a hand model: give one of MANO's .pkl files, or a .npz file")
    try:
        with np.load(path, allow_pickle=False) as content:
            return _checked({name: content[name] for name in content.files}, path)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"{path} cannot be read: {error}") from error


@functools.cache
def procedural_hand() -> HandArrays:
    """Return the built-in right hand, generated by scripts/make_hand.py without scans and without MANO's data."""
    return read_hand(Path(__file__).parent / "procedural_hand.npz")


def save_hand(hand: HandArrays, path: Path) -> None:
    """Write a hand model as a compressed .npz file, in float32, with MANO's array names.

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
    """Return the arrays of a file, or raise a UserError if they are not those of a hand model."""
    if missing := [key for key in _KEYS.values() if key not in content]:
        raise UserError(f"{path} is not a hand model: it has no {', '.join(missing)}")
    arrays: dict[str, np.ndarray] = {}
    for field, key in _KEYS.items():
        try:
            arrays[field] = np.asarray(content[key], np.int64 if field == "faces" else np.float64)
        except (TypeError, ValueError) as error:
            raise UserError(f"{path}: {key} is not an array of numbers") from error
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
            raise UserError(f"{path}: {_KEYS[field]} has shape {arrays[field].shape}, expected {shape}")
        if not np.isfinite(arrays[field]).all():
            raise UserError(f"{path}: {_KEYS[field]} has values that are not finite")
    total = arrays["weights"].sum(1, keepdims=True)
    if not np.allclose(total, 1, atol=1e-3):
        raise UserError(f"{path}: rows of weights must sum to 1, but sum to {total.min():.3g} to {total.max():.3g}")
    arrays["weights"] = arrays["weights"] / total  # removes the rounding errors of float32 files
    if "kintree_table" in content:
        parents = tuple(np.asarray(content["kintree_table"])[0].astype(np.int64).tolist())
        if parents[1:] != PARENTS[1:]:
            raise UserError(f"{path}: kintree_table is {list(parents)}, expected {list(PARENTS)}")
    tips = content.get("tips", MANO_TIPS if vertices == MANO_VERTICES else None)
    if tips is None:
        raise UserError(
            f"{path} has {vertices} vertices, not MANO's {MANO_VERTICES}: add tips, the vertex indices of fingertips"
        )
    tips = np.asarray(tips, np.int64)
    for name, index in (("tips", tips), ("f", arrays["faces"])):
        if not vertices or index.min() < 0 or index.max() >= vertices:
            raise UserError(f"{path}: {name} contains indices outside of the {vertices} vertices")
    if tips.shape != (5,):
        raise UserError(f"{path}: tips has shape {tips.shape}, expected (5,)")
    side = str(content.get("side", "left" if "left" in path.name.lower() else "right"))
    if side not in ("right", "left"):
        raise UserError(f"{path}: side must be right or left, got {side!r}")
    return HandArrays(name=str(content.get("name", path.stem)), side=cast(Side, side), tips=tips, **arrays)
