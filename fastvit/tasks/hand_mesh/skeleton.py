"""The joints of a hand: their names, order and parents. Needs no torch.

MANO (arXiv 2201.02610) has 16 joints that turn; FreiHAND (arXiv 1909.04349) adds the tips of the fingers and sorts the
21 by finger, from the thumb on.
"""

from __future__ import annotations

FINGERS = ("thumb", "index", "middle", "ring", "pinky")
# In FreiHAND's order.
JOINTS = (
    "wrist",
    *(f"thumb {part}" for part in ("CMC", "MCP", "IP", "tip")),
    *(f"{finger} {part}" for finger in FINGERS[1:] for part in ("MCP", "PIP", "DIP", "tip")),
)
# Pairs of joints that a bone lies between, in FreiHAND's order.
BONES = tuple((0 if place % 4 == 1 else place - 1, place) for place in range(1, 21))
# The joint of FreiHAND's order that meshes are placed by, the base of the middle finger.
ROOT = 9

# MANO's fingers, in its order; the joints of each follow one another, behind the wrist.
TURNING_FINGERS = ("index", "middle", "pinky", "ring", "thumb")
TURNING = 16
PARENTS = (-1, *(0 if place % 3 == 1 else place - 1 for place in range(1, TURNING)))
# MANO's 16 joints followed by the five tips in the order of FINGERS -> FreiHAND's 21.
TO_FREIHAND = (0, 13, 14, 15, 16, 1, 2, 3, 17, 4, 5, 6, 18, 10, 11, 12, 19, 7, 8, 9, 20)
# The vertices of MANO's mesh that FreiHAND takes for the tips, in the order of FINGERS.
MANO_TIPS = (744, 320, 443, 555, 672)
# What there is of a class in such images.
CLASSES = ("hand",)
