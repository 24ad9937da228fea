"""Programs of torch.export, in PyTorch on the CPU."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from fastvit.errors import UserError, first_line
from fastvit.runtime.artifact import Run
from fastvit.weights.description import METADATA_KEY


def read(path: Path, threads: int | None = None) -> tuple[str | None, Run]:
    """What the file says of itself, and how to run it. PyTorch's threads are the process's: `threads` is not for here.

    Raises:
        UserError: the file is damaged.
    """
    extra = {METADATA_KEY: ""}
    try:
        program = torch.export.load(path, extra_files=extra)
    except Exception as error:  # zip, JSON and torch errors of several kinds
        raise UserError(f"torch.export cannot read {path}: {first_line(error)}") from error
    module = program.module()

    def run(images: np.ndarray) -> list[np.ndarray]:
        with torch.inference_mode():
            answers = module(torch.from_numpy(images))
        return [answer.numpy() for answer in (answers if isinstance(answers, (list, tuple)) else [answers])]

    text = extra[METADATA_KEY]
    return text.decode() if isinstance(text, bytes) else text, run
