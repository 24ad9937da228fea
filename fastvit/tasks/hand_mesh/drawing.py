"""Drawing the predictions of a hand mesh regressor."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw

from fastvit.tasks.colors import Color, class_colors, enlarged
from fastvit.tasks.hand_mesh.prediction import HandPrediction
from fastvit.tasks.hand_mesh.rasterizer import rasterize, vertex_normals
from fastvit.tasks.hand_mesh.skeleton import BONES, FINGERS

_MESH = np.array([150.0, 190, 255])
_OPACITY = 0.75
_FAR = 1.0  # meters from the viewer; it only has to keep all depths above 0


def draw(image: Image.Image, prediction: HandPrediction) -> Image.Image:
    """Return the image with the shaded mesh and the joints on it, in one color per finger.

    A small image is enlarged by an integer factor.
    """
    image, factor = enlarged(image)
    pixels = np.asarray(image.convert("RGB"), np.float64).copy()
    size = (image.height, image.width)
    raster = rasterize(factor * prediction.vertices_2d, _FAR + prediction.vertices[:, 2], prediction.faces, size)
    normals = raster.interpolated(vertex_normals(prediction.vertices, prediction.faces), prediction.faces)
    facing = np.abs(normals @ np.array([0.3, 0.3, -0.9]))[:, None]
    covered = raster.covered
    pixels[covered] += _OPACITY * (_MESH * (0.3 + 0.7 * facing) - pixels[covered])
    drawn = Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
    _draw_joints(ImageDraw.Draw(drawn), factor * prediction.joints_2d, max(*image.size) / 384)
    return drawn


def _draw_joints(pen: ImageDraw.ImageDraw, places: np.ndarray, unit: float) -> None:
    points = [(float(x), float(y)) for x, y in places]
    colors = class_colors(len(FINGERS))

    def finger(joint: int) -> Color:
        return colors[(joint - 1) // 4]

    for start, end in BONES:
        pen.line((*points[start], *points[end]), fill=finger(end), width=max(round(2 * unit), 1))
    for joint, (x, y) in enumerate(points):
        radius = (2.5 if joint else 3.5) * unit
        color = finger(joint) if joint else (255, 255, 255)
        pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=color, outline=(0, 0, 0))
