"""Exports: write an artifact, run it, and keep it only if its outputs equal those of the model."""

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
    """An exported artifact.

    Attributes:
        path: file or folder of the artifact.
        target: export target.
        signature: inputs and outputs.
        proof: comparison with the model; None if the runtime is not available on this machine (written, not run).
        not_run: reason why it was not run, if there is no proof.
        megabytes: size of all its files, in megabytes (1e6 bytes).
        seconds: time that writing took.
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
    """Fuse a model, write it, run the artifact in its runtime and compare its outputs with those of the model.

    Args:
        model: model in any form, the reference of the comparison.
        target: export target.
        path: file to write; its name must end in the suffix of the target.
        pictures: images on which the outputs are compared.
        options: options of the artifact; by default float32, batch size 1, at the image size of the model.
        labels: true classes of the images, to compare top-1 accuracy.
        calibration: calibration images for int8, other than those of the comparison.

    Raises:
        UserError: the target does not support the options, or the outputs differ by more than the tolerance of the
            precision; an older file at `path` is then unchanged.
    """
    options = options or ExportOptions()
    if not path.name.endswith(target.suffix):
        raise UserError(f"{path} does not end in {target.suffix}, the suffix of {target.name} files")
    target.check(options)
    program = build_program(model, options, target.cast)
    if model.data_dependent and program.module.output != FEATURES and not target.data_dependent:
        raise UserError(
            f"{target.name} does not support outputs whose number depends on the image: use --output features, or "
            "--to onnx"
        )
    examples = prepared(calibration, program.description.preprocessing, options.input) if calibration else None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot create the folder {path.parent}: {error.strerror}; give another --out") from error
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".export-") as folder:
        written = Path(folder) / path.name
        start = time.perf_counter()
        target.write(program, written, examples)
        seconds = time.perf_counter() - start
        proof, not_run = None, f"no runtime of this package runs {target.suffix} files"
        if target.runner and (not_run := target.runner.available() or "") == "":
            proof = find_task(model.task).prove(model, target.runner.open(written), pictures, labels)
            if missed := TOLERANCES[options.precision].missed(proof):
                raise UserError(
                    f"{path} was not written: its outputs in {target.runtime} differ from those of the model: "
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
    """Export to every target with every option; a failure does not stop the others.

    Args:
        model: model in any form.
        targets: export targets.
        wanted: options of the artifacts to write for each target.
        folder: folder for the artifacts, named VARIANT-PRECISION.SUFFIX, with the batch size if there are several.
        pictures: images on which the outputs are compared.
        calibration: calibration images for int8.
        say: function that is called with one line per artifact.

    Returns:
        The artifacts written, and the reasons of failures by file name.
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
