"""Predictions of a hand mesh regressor. Needs no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fastvit.predict.prediction import Prediction
from fastvit.tasks.hand_mesh.camera import to_pixels, weak_projection
from fastvit.tasks.hand_mesh.hand_file import Side
from fastvit.tasks.hand_mesh.mesh_file import write_mesh
from fastvit.tasks.hand_mesh.skeleton import JOINTS, ROOT


@dataclass(frozen=True)
class HandPrediction(Prediction):
    """Predicted hand in one image, in space and in pixels.

    Attributes:
        image: name of the image.
        side: "right" or "left".
        joints: (21, 3) joints in meters from the root joint; x to the right of the image, y down, z away.
        vertices: (V, 3) vertices in the same coordinates.
        joints_2d: (21, 2) x and y of the joints in pixels of the image.
        vertices_2d: (V, 2) x and y of the vertices in pixels of the image.
        faces: (F, 3) triangles of the mesh, vertex indices.
    """

    image: str
    side: Side
    joints: np.ndarray
    vertices: np.ndarray
    joints_2d: np.ndarray
    vertices_2d: np.ndarray
    faces: np.ndarray

    def record(self) -> dict[str, Any]:
        """Return a record for JSON: "image", and "predictions" with "side", "joints" (meters), "joints_2d" (pixels)."""
        joints, places = self.joints.round(5).tolist(), self.joints_2d.round(2).tolist()
        hand = {
            "side": self.side,
            "root": JOINTS[ROOT],
            "joints": dict(zip(JOINTS, joints, strict=True)),
            "joints_2d": dict(zip(JOINTS, places, strict=True)),
        }
        return {"image": self.image, "predictions": [hand]}

    def summary(self) -> str:
        """Return one line of text: side of the hand, its box in pixels, and its length."""
        (left, top), (right, bottom) = self.vertices_2d.min(0), self.vertices_2d.max(0)
        length = 1000 * np.linalg.norm(np.diff(self.joints[[0, *range(ROOT, ROOT + 4)]], axis=0), axis=1).sum()
        return f"{self.side} hand, box {left:.0f}, {top:.0f}, {right:.0f}, {bottom:.0f} px, length {length:.0f} mm"

    def write_mesh(self, path: Path) -> None:
        """Write the mesh as an .obj or .ply file, in meters from the root joint."""
        write_mesh(path, self.vertices, self.faces)


def predict(
    outputs: Mapping[str, np.ndarray],
    image: str,
    canvas: tuple[int, int],
    fitted: tuple[int, int],
    original: tuple[int, int],
    faces: np.ndarray,
) -> HandPrediction:
    """Decode a regressor's raw outputs for one image.

    Args:
        outputs: raw outputs "vertices" (1, V, 3), "joints" (1, 21, 3), "camera" (1, 3), and "side" (1, 1) of networks
            for both sides.
        image: name of the image.
        canvas: height and width of the network's input, in pixels.
        fitted: height and width of the resized image in it, at the upper left corner.
        original: height and width of the original image.
        faces: (F, 3) triangles of a right hand's mesh.
    """
    vertices, joints, camera = (outputs[name][0].astype(np.float64) for name in ("vertices", "joints", "camera"))
    factors = np.array([original[1] / fitted[1], original[0] / fitted[0]])
    joints_2d, vertices_2d = (
        factors * to_pixels(weak_projection(points, camera), canvas) for points in (joints, vertices)
    )
    left = "side" in outputs and float(outputs["side"][0, 0]) > 0
    turned = faces[:, ::-1] if left else faces  # mirroring reverses the orientation of the faces
    return HandPrediction(image, "left" if left else "right", joints, vertices, joints_2d, vertices_2d, turned)
