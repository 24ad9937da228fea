"""Predictions as pictures and meshes, a file for each image."""

from __future__ import annotations

from pathlib import Path

from fastvit.data.images import read_image
from fastvit.errors import UserError
from fastvit.files import atomic
from fastvit.predict.prediction import Prediction
from fastvit.tasks.spec import TaskSpec


class Canvas:
    """A folder of images with what a model says of them.

    Args:
        folder: made if it is not there.
        task: of the predictions.

    Attributes:
        drawn: how many pictures there are.

    Raises:
        UserError: the folder cannot be made.
    """

    def __init__(self, folder: Path, task: TaskSpec) -> None:
        self._paths, self.drawn = _Paths(folder, "--draw"), 0
        self._task = task

    def draw(self, prediction: Prediction) -> Path:
        """Draw a prediction for an image file; images of the same name from different folders get a number."""
        picture = self._task.draw(read_image(prediction.image), prediction)
        path = self._paths.of(prediction.image, ".png")
        with atomic(path) as part:
            picture.save(part, format="PNG")
        self.drawn += 1
        return path


class Meshes:
    """The meshes of predictions as files.

    Args:
        path: .obj or .ply file for the one image, or a folder, made if it is not there, for .obj files.
        task: of the model, which must give meshes.
        images: how many there are.

    Attributes:
        written: how many meshes there are.

    Raises:
        UserError: the model gives no meshes, one file is given for several images, or the folder cannot be made.
    """

    def __init__(self, path: Path, task: TaskSpec, images: int) -> None:
        if not task.mesh_suffixes:
            raise UserError(f"a model for {task.name} predicts no meshes: leave --mesh out")
        self._file = path if path.suffix in task.mesh_suffixes else None
        self._suffix = task.mesh_suffixes[0]
        if self._file and images > 1:
            raise UserError(f"{path} is one file for {images} images: give a folder to --mesh")
        self._paths = _Paths(path.parent if self._file else path, "--mesh")
        self.written = 0

    def write(self, prediction: Prediction) -> Path:
        """Write the mesh of a prediction for an image file."""
        path = self._file or self._paths.of(prediction.image, self._suffix)
        prediction.write_mesh(path)
        self.written += 1
        return path


class _Paths:
    """A folder's files named after images, of which several may have the same name."""

    def __init__(self, folder: Path, option: str) -> None:
        self._folder = folder
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"cannot make the folder {folder}: {error.strerror}; give another {option}") from error
        self._names: set[str] = set()

    def of(self, image: str, suffix: str) -> Path:
        stem = name = Path(image).stem
        for number in range(2, len(self._names) + 3):
            if name not in self._names:
                break
            name = f"{stem}-{number}"
        self._names.add(name)
        return self._folder / f"{name}{suffix}"
