"""Exports of checkpoints to the fastest available runtime: verified once, then cached.

Cached artifacts are found without importing torch.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from filelock import FileLock

from fastvit.errors import UserError
from fastvit.export.options import ExportOptions
from fastvit.export.target import TARGETS, Target
from fastvit.files import TemporaryFolder, cache_folder
from fastvit.runtime.artifact import RUNTIMES, Precision, find_runtime
from fastvit.tasks.table import find_task
from fastvit.version import __version__
from fastvit.weights.location import locate

if TYPE_CHECKING:
    from fastvit.model.task_model import TaskModel

# Targets to which checkpoints are exported, in order of preference.
_PREFERRED = ("openvino", "onnx")
# Number of images of the embedded sample on which the export is verified.
PROVED_ON = 16
# File with the digests of all other files of a cache entry. Without it, or if a digest differs, the entry is corrupt.
_DIGESTS = "digests.json"


def find_deployment(runtime: str, precision: Precision) -> Target:
    """Return the export target with which a checkpoint runs on this CPU.

    Args:
        runtime: "openvino", "onnxruntime", or "auto": OpenVINO if it is installed, else ONNX Runtime.
        precision: precision of the arithmetic.

    Raises:
        UserError: the runtime is not available on this machine, or not in that precision.
    """
    if runtime != "auto":
        find_runtime(runtime)
    targets = [TARGETS[name] for name in _PREFERRED if runtime in ("auto", TARGETS[name].runtime)]
    if not targets:
        raise UserError(f"{runtime} runs artifacts: a checkpoint runs in torch, onnxruntime and openvino")
    offered = [target for target in targets if precision in target.precisions and precision != "int8"]
    if not offered:
        raise UserError(
            f"a checkpoint does not run in {precision} in this runtime: create an artifact with fastvit export"
        )
    for target in offered:
        if RUNTIMES[target.runtime or ""].available() is None:
            return target
    raise UserError(str(RUNTIMES[offered[0].runtime or ""].available()))


def cached_path(checkpoint: str | Path, target: Target, precision: Precision) -> Path:
    """Return the path of a checkpoint's artifact in the cache, by the content of the file and the package version.

    An entry of the cache is a folder; it is complete when it appears. The environment variable FASTVIT_CACHE sets the
    folder of the cache, by default ~/.cache/fastvit.

    Args:
        checkpoint: checkpoint or run directory.
        target: export target.
        precision: precision of the artifact.

    Raises:
        UserError: the checkpoint does not exist.
    """
    entry = cache_folder() / __version__ / _digest(locate(checkpoint))[:32] / f"{target.name}-{precision}"
    return entry / f"model{target.suffix}"


def is_deployed(checkpoint: str | Path, runtime: str = "auto", precision: Precision = "fp32") -> bool:
    """Return whether the artifact of a checkpoint is in the cache; its content is not checked.

    Args:
        checkpoint: checkpoint or run directory.
        runtime: name of the runtime, see `find_deployment`.
        precision: precision of the artifact.

    Raises:
        UserError: the checkpoint does not exist, or the runtime is not available.
    """
    path = cached_path(checkpoint, find_deployment(runtime, precision), precision)
    try:
        return path.exists()
    except OSError:  # the folder of the cache is not readable
        return False


def deploy(source: TaskModel | str | Path, path: Path, target: Target, precision: Precision) -> None:
    """Export a model for any batch size at its own image size, and verify it on the embedded sample.

    Args:
        source: model, checkpoint or run directory.
        path: file to write.
        target: export target.
        precision: precision of the artifact.

    Raises:
        UserError: the file cannot be written, or its outputs differ from those of the checkpoint.
    """
    from fastvit.export.export import export
    from fastvit.export.pictures import to_compare_on
    from fastvit.runs.evaluation_data import EvaluationData
    from fastvit.weights.native import load

    model = load(source) if isinstance(source, (str, Path)) else source
    pictures = to_compare_on(model, EvaluationData(None, "sample"), None, PROVED_ON).images
    batch: Literal["dynamic", 1] = "dynamic" if find_task(model.task).batched else 1
    export(model, target, path, pictures, ExportOptions(precision, batch))


def deployed(
    source: TaskModel | str | Path, runtime: str, precision: Precision
) -> tuple[Path, str, TemporaryFolder | None]:
    """Return the artifact of a checkpoint or model; it is exported if it is not in the cache, or corrupt there.

    If the cache is not writable, a warning is issued and the artifact is exported to a temporary folder.

    Args:
        source: model, checkpoint or run directory; the artifact of a model in memory is not cached.
        runtime: name of the runtime, see `find_deployment`.
        precision: precision of the artifact.

    Returns:
        Path of the artifact, name of its runtime, and its temporary folder, None if it is in the cache.

    Raises:
        UserError: the runtime is not available, or the export fails or is not equal to the checkpoint.
        OSError: a temporary folder cannot be written either.
    """
    target = find_deployment(runtime, precision)
    if isinstance(source, (str, Path)):
        path = cached_path(source, target, precision)
        try:
            if not _is_intact(path):
                _keep(source, path, target, precision)
            return path, target.runtime or "", None
        except OSError as error:
            warnings.warn(
                f"cannot write the cache {cache_folder()} ({error.strerror or error}); every process exports {source} "
                "again: set FASTVIT_CACHE to a writable folder",
                stacklevel=4,
            )
    folder = TemporaryFolder()
    path = folder.path / f"model{target.suffix}"
    deploy(source, path, target, precision)
    return path, target.runtime or "", folder


def _keep(source: str | Path, path: Path, target: Target, precision: Precision) -> None:
    """Write an entry of the cache; a corrupt one is replaced.

    Raises:
        UserError: the export fails or is not equal to the checkpoint.
        OSError: the cache is not writable.
    """
    entry = path.parent
    entry.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(entry.parent / f".{entry.name}.lock"):  # one thread or process exports, others wait
        if _is_intact(path):
            return
        with (
            # Not in the cache: on a full disk converters raise errors of any type, copying raises an OSError.
            tempfile.TemporaryDirectory(prefix="fastvit-") as elsewhere,
            tempfile.TemporaryDirectory(dir=entry.parent, prefix=".new-") as folder,
        ):
            deploy(source, Path(elsewhere) / path.name, target, precision)
            made = Path(folder) / entry.name
            made.mkdir()
            for file in Path(elsewhere).iterdir():
                shutil.copyfile(file, made / file.name)
            digests = {file.name: _digest(file) for file in made.iterdir()}
            (made / _DIGESTS).write_text(json.dumps(digests), encoding="utf-8")
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry)
            else:
                entry.unlink(missing_ok=True)
            made.replace(entry)


def _is_intact(path: Path) -> bool:
    """Return whether an artifact is in the cache, complete and unchanged."""
    try:
        digests = json.loads((path.parent / _DIGESTS).read_text(encoding="utf-8"))
        if path.parent.is_symlink() or not isinstance(digests, dict):
            return False
        return path.name in digests and all(_digest(path.parent / file) == digest for file, digest in digests.items())
    except (OSError, ValueError, RecursionError):
        return False


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
