"""Random hand poses within the joints' ranges of motion. Needs no torch."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.spatial.transform import Rotation

from fastvit.tasks.hand_mesh.hand_file import HandArrays
from fastvit.tasks.hand_mesh.skeleton import TURNING, TURNING_FINGERS

# Smallest and largest flexion to the palm, in degrees, of a finger's three joints and of the thumb's: about the usual
# ranges of adults (American Academy of Orthopaedic Surgeons, 1965). The last joint follows the middle one.
_FINGER = ((-20, 85), (0, 100), (0, 65))
_THUMB = ((-15, 35), (-5, 45), (-10, 65))
# Largest abduction of a straight finger at its base, in degrees, in both directions.
_ASIDE = {"finger": 12, "thumb": 18}
# Flexion of the hand as fractions of the ranges: open, loosely bent, fist; and the probability of separate fingers.
_CURLS = ((0.02, 0.12), (0.15, 0.5), (0.6, 0.95))
_EACH = 0.35


@dataclass(frozen=True)
class HandAxes:
    """Axes of a hand at rest, in its own coordinates.

    Attributes:
        frame: (3, 3) unit vectors, one per row: to the thumb, along the fingers, out of the palm.
        bend: (5, 3) flexion axis of each finger, in MANO's order.
        aside: (5, 3) abduction axis of each finger.
    """

    frame: np.ndarray
    bend: np.ndarray
    aside: np.ndarray

    @classmethod
    def of(cls, hand: HandArrays) -> HandAxes:
        """Compute the axes from the joints of any right or left hand model."""
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
    """Draw a pose (16, 3): axis-angle of every joint in radians, relative to the flat hand; the hand itself has 0."""
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
    """Draw a rotation (3, 3) from the hand's to the camera's axes: palm or back to the viewer, fingers mostly up."""
    upright = np.diag([1.0, -1.0, -1.0]) @ axes.frame  # the camera's y is down, and its z away from it
    about = generator.choice([0.0, 180.0]) + generator.normal(0, 25)
    tilt, roll = generator.normal(0, 15), generator.normal(0, 25)
    view = Rotation.from_euler("yxz", [about, tilt, roll], degrees=True).as_matrix()
    return np.asarray(view @ upright)


def _unit(vector: np.ndarray) -> np.ndarray:
    return np.asarray(vector / np.linalg.norm(vector))
