"""Write, read back, run, compare: an artifact is there proved, or not at all."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from fastvit.errors import UserError
from fastvit.export.options import FEATURES, ExportOptions
from fastvit.export.pictures import Pictures
from fastvit.export.program import build_program
from fastvit.export.proof import TOLERANCES, Proof, prepared
from fastvit.export.target import Target
from fastvit.model.task_model import TaskModel
from fastvit.runtime.artifact import Signature
from fastvit.tasks.table import find_task


@dataclass(frozen=True)
class Exported:
    """An artifact.

    Attributes:
        path: its file or folder.
        target: of the table.
        signature: what it takes and gives.
        proof: None where its runtime is not here: written, not run.
        not_run: why not, then.
        megabytes: of all its files.
        seconds: that writing took.
    """

    path: Path
    target: Target
    signature: Signature
    proof: Proof | None
    not_run: str | None
    megabytes: float
    seconds: float

    def __str__(self) -> str:
        verdict = f"{self.target.runtime}: {self.proof}" if self.proof else f"written, not run: {self.not_run}"
        return f"{self.path}: {self.megabytes:.1f} MB; {verdict}"


def export(
    model: TaskModel,
    target: Target,
    path: Path,
    pictures: Sequence[Image.Image],
    options: ExportOptions | None = None,
    labels: Sequence[int] | None = None,
    calibration: Sequence[Image.Image] | None = None,
) -> Exported:
    """Fuse, write, read back, run, compare with the given model.

    Args:
        model: in any form; it is what the artifact is compared with.
        target: of the table.
        path: file to write; its name must end in the target's suffix.
        pictures: what the two are compared on.
        options: what to write; by default float32, one image a call, of the model's own size.
        labels: true classes of the pictures, for the accuracy of both.
        calibration: other pictures, for int8.

    Raises:
        UserError: the target cannot do what is asked, or the artifact's outputs are further from the model's than its
            precision allows; what was at `path` before is then still there.
    """
    options = options or ExportOptions()
    if not path.name.endswith(target.suffix):
        raise UserError(f"{path}: files of the {target.name} target end in {target.suffix}")
    target.check(options)
    program = build_program(model, options, target.cast)
    if model.data_dependent and program.module.output != FEATURES and not target.data_dependent:
        raise UserError(
            f"{target.name} cannot compute outputs whose number depends on the image: give --output features, or "
            "--to onnx"
        )
    examples = prepared(calibration, program.description.preprocessing, options.input) if calibration else None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot make the folder {path.parent}: {error.strerror}; give another --out") from error
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".export-") as folder:
        written = Path(folder) / path.name
        start = time.perf_counter()
        target.write(program, written, examples)
        seconds = time.perf_counter() - start
        proof, not_run = None, f"nothing here runs {target.suffix} files"
        if target.runner and (not_run := target.runner.available() or "") == "":
            proof = find_task(model.task).prove(model, target.runner.open(written), pictures, labels)
            if missed := TOLERANCES[options.precision].missed(proof):
                raise UserError(
                    f"{path} was not written: it would not compute what the model does in {target.runtime}: "
                    + "; ".join(missed)
                )
        megabytes = sum(file.stat().st_size for file in Path(folder).rglob("*") if file.is_file()) / 1e6
        for part in Path(folder).iterdir():
            _replace(part, path.parent / part.name)
    return Exported(path, target, program.signature, proof, not_run or None, megabytes, seconds)


def export_all(
    model: TaskModel,
    targets: Sequence[Target],
    wanted: Sequence[ExportOptions],
    folder: Path,
    pictures: Pictures,
    calibration: Sequence[Image.Image] | None,
    say: Callable[[str], object],
) -> tuple[list[Exported], dict[str, str]]:
    """Every target with every option; one that fails does not keep the others from being written.

    Args:
        model: in any form.
        targets: of the table.
        wanted: what to write of each.
        folder: for the artifacts, which are called VARIANT-PRECISION.SUFFIX, with the batch where there are several.
        pictures: to compare on.
        calibration: other pictures, for int8.
        say: called with a line for each artifact.

    Returns:
        What was written, and the reason by name of what was not.
    """
    done: list[Exported] = []
    failed: dict[str, str] = {}
    for target in targets:
        for options in wanted:
            batch = f"-b{options.batch}" if len(wanted) > 1 else ""
            name = f"{model.variant}-{options.precision}{batch}{target.suffix}"
            try:
                exported = export(model, target, folder / name, pictures.images, options, pictures.labels, calibration)
            except UserError as error:
                failed[name] = str(error)
            else:
                say(str(exported))
                done.append(exported)
    return done, failed


def _replace(source: Path, target: Path) -> None:
    if target.is_dir():
        shutil.rmtree(target)
    source.replace(target)
