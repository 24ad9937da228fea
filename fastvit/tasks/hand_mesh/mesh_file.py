"""Writing mesh files. Needs no torch."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from fastvit.errors import UserError
from fastvit.files import write_text

SUFFIXES = (".obj", ".ply")


def write_mesh(path: Path, vertices: np.ndarray, faces: np.ndarray) -> None:
    """Write a mesh as .obj or .ply (text), in meters, with y up and z to the viewer, as usual in such files.

    Args:
        path: file to write; its suffix determines the format.
        vertices: (V, 3) vertices on a camera's axes: y down, z away.
        faces: (F, 3) triangles, vertex indices from 0.

    Raises:
        UserError: the suffix is not .obj or .ply, or the file cannot be written.
    """
    if path.suffix not in SUFFIXES:
        raise UserError(f"{path}: meshes are written as {' or '.join(SUFFIXES)} files")
    points = [f"{x:.6f} {-y:.6f} {-z:.6f}" for x, y, z in vertices.tolist()]
    if path.suffix == ".obj":
        lines = [f"v {point}" for point in points] + [f"f {a + 1} {b + 1} {c + 1}" for a, b, c in faces.tolist()]
    else:
        header = ["ply", "format ascii 1.0", f"element vertex {len(points)}"]
        header += [f"property float {axis}" for axis in "xyz"]
        header += [f"element face {len(faces)}", "property list uchar int vertex_indices", "end_header"]
        lines = header + points + [f"3 {a} {b} {c}" for a, b, c in faces.tolist()]
    write_text(path, "\n".join(lines) + "\n")
