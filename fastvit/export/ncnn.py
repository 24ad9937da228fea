"""ncnn: NAME.ncnn.param with its weights in NAME.ncnn.bin, converted by pnnx.

The description is in the last line of the former, which ncnn does not read.
"""

from __future__ import annotations

import subprocess
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch

from fastvit.errors import UserError
from fastvit.export.attention import with_plain_attention
from fastvit.export.program import Program
from fastvit.files import atomic
from fastvit.runtime.artifact import to_metadata
from fastvit.weights.description import METADATA_KEY


def write(program: Program, path: Path, calibration: np.ndarray | None = None) -> None:
    """Convert and write a program. Its images are always float32, also pixels from 0 to 255.

    Args:
        program: program to write.
        path: file to write.
        calibration: not used.

    Raises:
        UserError: the batch size is not 1, pnnx fails, or a file cannot be written.
    """
    if program.signature.batch != 1:
        raise UserError("ncnn takes one image per call: give --batch 1")
    metadata = to_metadata(program.description, program.signature)
    with TemporaryDirectory() as name:
        folder = Path(name)
        convert(program, folder)
        parameters = (folder / "model.ncnn.param").read_text()
        with atomic(path.with_suffix(".bin")) as part:
            part.write_bytes((folder / "model.ncnn.bin").read_bytes())
        with atomic(path) as part:
            part.write_text(f"{parameters.rstrip()}\n{METADATA_KEY} {metadata}\n", encoding="utf-8")


def convert(program: Program, folder: Path) -> None:
    """Write model.ncnn.param, model.ncnn.bin and temporary files into a folder.

    Args:
        program: program to write.
        folder: folder to write to.

    Raises:
        UserError: pnnx fails.
    """
    import pnnx

    example = program.example.float()
    # ncnn does not support arrays of five dimensions, which torch's attention has.
    module = with_plain_attention(program.module)
    with torch.no_grad():
        torch.jit.trace(module, (example,)).save(str(folder / "model.pt"))
    shape = ",".join(map(str, example.shape))
    half = int(program.signature.precision == "fp16")
    done = subprocess.run(
        [pnnx.EXEC_PATH, "model.pt", f"inputshape=[{shape}]", f"fp16={half}"],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode or not (folder / "model.ncnn.bin").is_file():
        raise UserError(f"pnnx cannot convert the model: {(done.stderr.splitlines() or ['no error message'])[-1]}")
