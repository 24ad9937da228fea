"""Poses that a hand can take, drawn at random within what its joints allow. Needs no torch."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.spatial.transform import Rotation

from fastvit.tasks.hand_mesh.hand_file import HandArrays
from fastvit.tasks.hand_mesh.skeleton import TURNING, TURNING_FINGERS

# Degrees that a joint bends to the palm, least and most: of a finger's three joints, and of the thumb's; about the
# usual ranges of adults (American Academy of Orthopaedic Surgeons, 1965), the last joint following the middle one.
_FINGER = ((-20, 85), (0, 100), (0, 65))
_THUMB = ((-15, 35), (-5, 45), (-10, 65))
# And goes aside at its base, either way, when straight.
_ASIDE = {"finger": 12, "thumb": 18}
# How closed whole hands are: open, loosely bent, a fist; and how often only some fingers are.
_CURLS = ((0.02, 0.12), (0.15, 0.5), (0.6, 0.95))
_EACH = 0.35


@dataclass(frozen=True)
class HandAxes:
    """How a resting hand lies in its own coordinates.

    Attributes:
        frame: (3, 3), rows: towards the thumb, along the fingers, out of the palm.
        bend: (5, 3) axis of each finger, MANO's order, about which it bends to the palm.
        aside: (5, 3) axis about which it goes aside.
    """

    frame: np.ndarray
    bend: np.ndarray
    aside: np.ndarray

    @classmethod
    def of(cls, hand: HandArrays) -> HandAxes:
        """Read off the joints of a right or left hand of any make."""
        joints = hand.joint_regressor @ hand.template
        bases = {name: joints[1 + 3 * i] for i, name in enumerate(TURNING_FINGERS)}
        ends = {name: joints[3 + 3 * i] for i, name in enumerate(TURNING_FINGERS)}
        out = np.cross(bases["index"] - joints[0], bases["pinky"] - joints[0])
        palm = _unit(out if hand.side == "right" else -out)
        along = bases["middle"] - joints[0]
        along = _unit(along - (along @ palm) * palm)
        frame = np.stack([np.cross(along, palm), along, palm])
        bend, aside = [], []
        for name in TURNING_FINGERS:
            direction = _unit(ends[name] - bases[name])
            # A finger bends to the palm, the thumb across it.
            goal = palm if name != "thumb" else _unit(bases["pinky"] - bases["thumb"]) + 0.7 * palm
            axis = _unit(np.cross(direction, goal))
            bend.append(axis)
            aside.append(np.cross(axis, direction))
        return cls(frame, np.stack(bend), np.stack(aside))


def random_pose(axes: HandAxes, generator: np.random.Generator) -> np.ndarray:
    """(16, 3) axis-angle of every joint, radians, from the flat hand; that of the whole hand is 0."""
    pose = np.zeros((TURNING, 3))
    low, high = _CURLS[generator.choice(3, p=(0.3, 0.45, 0.25))]
    together = generator.random() > _EACH
    for finger, name in enumerate(TURNING_FINGERS):
        if not together:  # pointing, counting, pinching
            low, high = _CURLS[generator.choice(3, p=(0.5, 0.2, 0.3))]
        limits = _THUMB if name == "thumb" else _FINGER
        curl = generator.uniform(low, high)
        shares = np.clip(curl + generator.normal(0, 0.1, 3), 0, 1)
        shares[2] = np.clip(shares[1] + generator.normal(0, 0.08), 0, 1)
        bends = [least + share * (most - least) for share, (least, most) in zip(shares, limits, strict=True)]
        freedom = _ASIDE["thumb" if name == "thumb" else "finger"]
        aside = float(np.clip(generator.normal(0, freedom / 2), -freedom, freedom)) * (1 - 0.8 * curl)
        first = 1 + 3 * finger
        base = Rotation.from_rotvec(np.deg2rad(aside) * axes.aside[finger])
        turned = base * Rotation.from_rotvec(np.deg2rad(bends[0]) * axes.bend[finger])
        pose[first] = turned.as_rotvec()
        pose[first + 1 : first + 3] = np.deg2rad(bends[1:])[:, None] * axes.bend[finger]
    return pose


def random_view(axes: HandAxes, generator: np.random.Generator) -> np.ndarray:
    """(3, 3) the hand's rest coordinates -> the camera's: palm or back about to the viewer, fingers mostly upwards."""
    upright = np.diag([1.0, -1.0, -1.0]) @ axes.frame  # the camera's y is down, and its z away from it
    about = generator.choice([0.0, 180.0]) + generator.normal(0, 25)
    tilt, roll = generator.normal(0, 15), generator.normal(0, 25)
    view = Rotation.from_euler("yxz", [about, tilt, roll], degrees=True).as_matrix()
    return np.asarray(view @ upright)


def _unit(vector: np.ndarray) -> np.ndarray:
    return np.asarray(vector / np.linalg.norm(vector))
