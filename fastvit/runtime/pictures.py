"""Answers drawn into their images."""

from __future__ import annotations

import importlib
from pathlib import Path

from PIL import Image

from fastvit.data.images import read_image
from fastvit.errors import UserError
from fastvit.files import atomic
from fastvit.runtime.predictor import Answer


class Canvas:
    """A folder of images with what a model says of them.

    Args:
        folder: made if it is not there.
        task: whose drawing room is used.

    Attributes:
        drawn: how many pictures there are.

    Raises:
        UserError: the folder cannot be made.
    """

    def __init__(self, folder: Path, task: str) -> None:
        self._folder, self.drawn = folder, 0
        self._draw = importlib.import_module(f"fastvit.tasks.{task}.drawing").draw
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"cannot make the folder {folder}: {error.strerror}; give another --draw") from error
        self._names: set[str] = set()

    def draw(self, answer: Answer) -> Path:
        """Draw an answer for an image file; images of the same name from different folders get a number."""
        picture: Image.Image = self._draw(read_image(answer.image), answer)
        stem = name = Path(answer.image).stem
        for number in range(2, len(self._names) + 3):
            if name not in self._names:
                break
            name = f"{stem}-{number}"
        self._names.add(name)
        path = self._folder / f"{name}.png"
        with atomic(path) as part:
            picture.save(part, format="PNG")
        self.drawn += 1
        return path
