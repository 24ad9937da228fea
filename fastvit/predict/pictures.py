"""Predictions as pictures and meshes, one file per image."""

from __future__ import annotations

from pathlib import Path

from fastvit.data.images import read_image
from fastvit.errors import UserError
from fastvit.files import atomic
from fastvit.predict.prediction import Prediction
from fastvit.tasks.spec import TaskSpec


class Canvas:
    """A folder of images with their predictions drawn into them.

    Args:
        folder: folder to write to; it is created if it does not exist.
        task: task of the predictions.

    Attributes:
        drawn: number of pictures written.

    Raises:
        UserError: the folder cannot be created.
    """

    def __init__(self, folder: Path, task: TaskSpec) -> None:
        self._paths, self.drawn = _Paths(folder, "--draw"), 0
        self._task = task

    def draw(self, prediction: Prediction) -> Path:
        """Draw the prediction for an image file, and return the file written; equal names get a number."""
        picture = self._task.draw(read_image(prediction.image), prediction)
        path = self._paths.of(prediction.image, ".png")
        with atomic(path) as part:
            picture.save(part, format="PNG")
        self.drawn += 1
        return path


class Meshes:
    """Mesh files of predictions.

    Args:
        path: .obj or .ply file for a single image, or folder for .obj files, which is created if it does not exist.
        task: task of the model, which must predict meshes.
        images: number of images.

    Attributes:
        written: number of meshes written.

    Raises:
        UserError: the model does not predict meshes, one file is given for several images, or the folder cannot be
            created.
    """

    def __init__(self, path: Path, task: TaskSpec, images: int) -> None:
        if not task.mesh_suffixes:
            raise UserError(f"a model for {task.name} does not predict meshes: leave --mesh out")
        self._file = path if path.suffix in task.mesh_suffixes else None
        self._suffix = task.mesh_suffixes[0]
        if self._file and images > 1:
            raise UserError(f"{path} is one file for {images} images: give a folder to --mesh")
        self._paths = _Paths(path.parent if self._file else path, "--mesh")
        self.written = 0

    def write(self, prediction: Prediction) -> Path:
        """Write the mesh of the prediction for an image file, and return the file written."""
        path = self._file or self._paths.of(prediction.image, self._suffix)
        prediction.write_mesh(path)
        self.written += 1
        return path


class _Paths:
    """Files in a folder named after images; equal names get a number."""

    def __init__(self, folder: Path, option: str) -> None:
        self._folder = folder
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"cannot create the folder {folder}: {error.strerror}; give another {option}") from error
        self._names: set[str] = set()

    def of(self, image: str, suffix: str) -> Path:
        stem = name = Path(image).stem
        for number in range(2, len(self._names) + 3):
            if name not in self._names:
                break
            name = f"{stem}-{number}"
        self._names.add(name)
        return self._folder / f"{name}{suffix}"
