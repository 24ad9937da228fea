"""A checkpoint in the fastest runtime that is here: exported and proved once, then kept in a cache.

What is in the cache already is found without torch.
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

# The targets whose files a checkpoint is turned into, the one that is taken first in front.
_PREFERRED = ("openvino", "onnx")
# Images of the embedded sample that the export is proved on.
PROVED_ON = 16
# The file of an entry of the cache that has the digests of the others. Without it, or against it, an entry is damaged.
_DIGESTS = "digests.json"


def find_deployment(runtime: str, precision: Precision) -> Target:
    """What to turn a checkpoint into on this CPU.

    Args:
        runtime: "openvino", "onnxruntime", or "auto": OpenVINO where it is installed, else onnxruntime.
        precision: of the arithmetic.

    Raises:
        UserError: the runtime cannot be had here or not in that precision.
    """
    if runtime != "auto":
        find_runtime(runtime)
    targets = [TARGETS[name] for name in _PREFERRED if runtime in ("auto", TARGETS[name].runtime)]
    if not targets:
        raise UserError(f"{runtime} runs artifacts: a checkpoint runs in torch, onnxruntime and openvino")
    offered = [target for target in targets if precision in target.precisions and precision != "int8"]
    if not offered:
        raise UserError(f"a checkpoint does not run in {precision} so: make an artifact with fastvit export")
    for target in offered:
        if RUNTIMES[target.runtime or ""].available() is None:
            return target
    raise UserError(str(RUNTIMES[offered[0].runtime or ""].available()))


def cached_path(checkpoint: str | Path, target: Target, precision: Precision) -> Path:
    """Where the artifact of a checkpoint is kept, or will be: by the content of the file and our version.

    An entry of the cache is a folder. It is written beside its place and moved there when it is complete. The cache is
    the folder that the environment variable FASTVIT_CACHE names, by default ~/.cache/fastvit.

    Raises:
        UserError: there is no such checkpoint.
    """
    entry = cache_folder() / __version__ / _digest(locate(checkpoint))[:32] / f"{target.name}-{precision}"
    return entry / f"model{target.suffix}"


def is_deployed(checkpoint: str | Path, runtime: str = "auto", precision: Precision = "fp32") -> bool:
    """Whether the artifact of a checkpoint is in the cache; it may be damaged."""
    path = cached_path(checkpoint, find_deployment(runtime, precision), precision)
    try:
        return path.exists()
    except OSError:  # the cache is in a folder that may not be looked into
        return False


def deploy(source: TaskModel | str | Path, path: Path, target: Target, precision: Precision) -> None:
    """Export to a path, for any number of images of the model's own size, and prove it on the embedded sample.

    Raises:
        UserError: the file cannot be written, or it computes something else than the checkpoint does.
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
    """An artifact of a checkpoint or a model, made if it is not in the cache, or damaged there.

    Where the cache cannot be written, a warning says so, and the artifact is made in a temporary folder.

    Returns:
        Its path, what runs it, and the folder that holds it if it is not kept: that of a model in memory.

    Raises:
        UserError: as `find_deployment` and `deploy`.
        OSError: no temporary folder can be written either.
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
                f"cannot write the cache {cache_folder()} ({error.strerror or error}), so that {source} is exported "
                "anew by every process: set FASTVIT_CACHE to a folder that can be written",
                stacklevel=4,
            )
    folder = TemporaryFolder()
    path = folder.path / f"model{target.suffix}"
    deploy(source, path, target, precision)
    return path, target.runtime or "", folder


def _keep(source: str | Path, path: Path, target: Target, precision: Precision) -> None:
    """Make an entry of the cache, in the place of a damaged one.

    Raises:
        UserError: as `deploy`.
        OSError: the cache cannot be written.
    """
    entry = path.parent
    entry.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(entry.parent / f".{entry.name}.lock"):  # of threads and processes that want the same one makes it
        if _is_intact(path):
            return
        with (
            # Not in the cache: where its disk is full, converters raise whatever they like, and copying an OSError.
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
    """Whether an artifact is in the cache, complete and as it was written."""
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
