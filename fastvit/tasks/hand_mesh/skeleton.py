"""Joints of a hand: their names, order and parents. Needs no torch.

MANO (arXiv 2201.02610) has 16 joints with rotations; FreiHAND (arXiv 1909.04349) adds the fingertips and sorts the 21
joints by finger, from the thumb on.
"""

from __future__ import annotations

FINGERS = ("thumb", "index", "middle", "ring", "pinky")
# In FreiHAND's order.
JOINTS = (
    "wrist",
    *(f"thumb {part}" for part in ("CMC", "MCP", "IP", "tip")),
    *(f"{finger} {part}" for finger in FINGERS[1:] for part in ("MCP", "PIP", "DIP", "tip")),
)
# Bones as pairs of joints, in FreiHAND's order.
BONES = tuple((0 if place % 4 == 1 else place - 1, place) for place in range(1, 21))
# Root joint in FreiHAND's order, the base of the middle finger; positions are relative to it.
ROOT = 9

# Fingers in MANO's order; after the wrist, each has three consecutive joints.
TURNING_FINGERS = ("index", "middle", "pinky", "ring", "thumb")
TURNING = 16
PARENTS = (-1, *(0 if place % 3 == 1 else place - 1 for place in range(1, TURNING)))
# Indices of FreiHAND's 21 joints among MANO's 16 joints followed by the five fingertips in the order of FINGERS.
TO_FREIHAND = (0, 13, 14, 15, 16, 1, 2, 3, 17, 4, 5, 6, 18, 10, 11, 12, 19, 7, 8, 9, 20)
# Vertices of MANO's mesh that FreiHAND uses as fingertips, in the order of FINGERS.
MANO_TIPS = (744, 320, 443, 555, 672)
# The only class.
CLASSES = ("hand",)
