"""A checkpoint in the fastest runtime that is here: exported and proved once, then kept in a cache.

What is in the cache already is found without torch.
"""

from __future__ import annotations

import hashlib
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from fastvit.errors import UserError
from fastvit.export.options import ExportOptions
from fastvit.export.target import TARGETS, Target
from fastvit.files import cache_folder
from fastvit.runtime.artifact import RUNTIMES, Precision
from fastvit.version import __version__
from fastvit.weights.location import locate

if TYPE_CHECKING:
    from fastvit.model.task_model import TaskModel

# The targets whose files a checkpoint is turned into, the one that is taken first in front.
_PREFERRED = ("openvino", "onnx")
# Images of the embedded sample that the export is proved on.
PROVED_ON = 16


def find_deployment(runtime: str, precision: Precision) -> Target:
    """What to turn a checkpoint into on this CPU.

    Args:
        runtime: "openvino", "onnxruntime", or "auto": OpenVINO where it is installed, else onnxruntime.
        precision: of the arithmetic.

    Raises:
        UserError: the runtime cannot be had here or not in that precision.
    """
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

    The cache is the folder that the environment variable FASTVIT_CACHE names, by default ~/.cache/fastvit.

    Raises:
        UserError: there is no such checkpoint.
    """
    with locate(checkpoint).open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return cache_folder() / __version__ / digest[:32] / f"model-{precision}{target.suffix}"


def is_deployed(checkpoint: str | Path, runtime: str = "auto", precision: Precision = "fp32") -> bool:
    """Whether the artifact of a checkpoint is in the cache."""
    return cached_path(checkpoint, find_deployment(runtime, precision), precision).exists()


def deploy(source: TaskModel | str | Path, path: Path, target: Target, precision: Precision) -> None:
    """Export to a path, for any number of images of the model's own size, and prove it on the embedded sample.

    Raises:
        UserError: the file cannot be written, or it computes something else than the checkpoint does.
    """
    from fastvit.evaluation.evaluation_data import EvaluationData
    from fastvit.export.export import export
    from fastvit.export.pictures import to_compare_on
    from fastvit.weights.native import load

    model = load(source) if isinstance(source, (str, Path)) else source
    pictures = to_compare_on(model, EvaluationData(None, "sample"), None, PROVED_ON).images
    export(model, target, path, pictures, ExportOptions(precision, "dynamic" if model.task == "classification" else 1))


def deployed(
    source: TaskModel | str | Path, runtime: str, precision: Precision
) -> tuple[Path, str, tempfile.TemporaryDirectory[str] | None]:
    """An artifact of a checkpoint or a model, made if it is not in the cache.

    Returns:
        Its path, what runs it, and the folder that holds it if it is not kept: that of a model in memory.

    Raises:
        UserError: as `find_deployment` and `deploy`.
    """
    target = find_deployment(runtime, precision)
    folder = None
    if isinstance(source, (str, Path)):
        path = cached_path(source, target, precision)
    else:
        folder = tempfile.TemporaryDirectory(prefix="fastvit-")
        path = Path(folder.name) / f"model{target.suffix}"
    if not path.exists():
        deploy(source, path, target, precision)
    return path, target.runtime or "", folder
