"""Images in, decoded answers out, from a model, a checkpoint or an exported artifact.

What runs an artifact loads no torch: importing this does not, and nothing on an artifact's way does.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from PIL import Image

from fastvit.data.images import find_images, read_image, to_rgb
from fastvit.data.pixels import eval_array, fitted_size
from fastvit.errors import UserError
from fastvit.predict.deployment import deployed
from fastvit.predict.engine import ArtifactEngine, Engine, TorchEngine
from fastvit.runtime.artifact import Precision, is_artifact
from fastvit.tasks.classification.prediction import Prediction, decode, softmax
from fastvit.tasks.detection import prediction as detection
from fastvit.tasks.detection.prediction import DetectionPrediction
from fastvit.tasks.hand_mesh import prediction as hand_mesh
from fastvit.tasks.hand_mesh.prediction import HandPrediction
from fastvit.tasks.segmentation import prediction as segmentation
from fastvit.tasks.segmentation.prediction import SegmentationPrediction
from fastvit.weights.description import read_task

if TYPE_CHECKING:
    from torch import Tensor

    from fastvit.model.task_model import TaskModel

# What a Predictor says of an image; which of them, its task tells.
Answer = Prediction | DetectionPrediction | SegmentationPrediction | HandPrediction
ImageLike = str | Path | Image.Image | np.ndarray
# Decoding releases the GIL for most of its time; more threads than this only wait for the model.
DECODERS = 4


@dataclass(frozen=True)
class Failure:
    """An image that could not be read, and why."""

    image: str
    reason: str


@dataclass(frozen=True)
class Shown:
    """An image as the model sees it: (C, H, W) uint8, and the height and width that it has itself."""

    pixels: np.ndarray
    size: tuple[int, int]


class Predictor:
    """A model ready to use, with its own preprocessing and class names, of any task.

    Threads may share it: calls wait for each other where the runtime computes one at a time.

    Args:
        source: a model in any form, a checkpoint or other weights that `fastvit.load` takes, or an artifact of
            `fastvit export`.
        device: for PyTorch; artifacts run on the CPU.
        runtime: what runs it. "auto" takes for an artifact the first that is installed of those that read it; for a
            classifier's checkpoint on the CPU OpenVINO where it is installed, else onnxruntime: the checkpoint is then
            exported when it is first used, which takes seconds, and kept in a cache (see
            `fastvit.predict.deployment`); for a model in memory, for other devices and tasks PyTorch.
        precision: "fp32"; in OpenVINO also "bf16", in PyTorch on a GPU "fp16" and "bf16", but for detectors; of an
            artifact its own. None for float32, or the artifact's own.
        threads: of a runtime that lets one choose; None for its own choice.
        prepare: model -> a copy of it to run in PyTorch; by default `fastvit.fuse`. With it a checkpoint runs there.
        kernels: as in `fastvit.predict.engine.TorchEngine`.
        allow_native_code: open an AOTInductor package (.aoti.pt2), which contains machine code that could do anything.

    Attributes:
        task: "classification", "detection", "segmentation" or "hand_mesh".
        form: "train", "merged" or "fused", of what runs.
        classes: names, or None where the source has none.
        num_classes: how many.
        options: what else the network is built from, of a task that has such options; else None.
        preprocessing: what is done to every image.
        runtime: "torch", "onnxruntime", ...; on a GPU also "torch fp16", or "kernels fp16" for ours.
        device: where it runs.

    Raises:
        UserError: the source is missing or damaged, its runtime is not here, or it contains native code that is not
            allowed.
    """

    def __init__(
        self,
        source: TaskModel | str | Path,
        device: str = "cpu",
        runtime: str = "auto",
        precision: Precision | None = None,
        threads: int | None = None,
        prepare: Callable[[TaskModel], TaskModel] | None = None,
        kernels: bool = True,
        allow_native_code: bool = False,
    ) -> None:
        self._engine = _engine(source, device, runtime, precision, threads, prepare, kernels, allow_native_code)
        description = self._engine.description
        self.task = description.task
        self.form, self.classes, self.preprocessing = description.form, description.classes, description.preprocessing
        self.num_classes, self.options = description.config.num_classes, description.options
        self.runtime, self.device = self._engine.runtime, self._engine.device
        self._channels = description.config.in_chans
        self._faces = self.options.hand.faces if self.task == "hand_mesh" else np.empty((0, 3), np.int64)
        if self._channels not in (1, 3):
            raise UserError(f"images have 1 or 3 channels, this model takes {self._channels}")

    def logits(self, images: Tensor) -> Tensor:
        """(B, classes) logits, on the CPU, of (B, C, H, W) images: preprocessed float32, or resized uint8 pixels.

        Raises:
            UserError: it is no classifier.
        """
        if self.task != "classification":
            raise UserError(f"a model for {self.task} gives no classes of images: call the Predictor with images")
        return self._engine.tensor(images)

    def answers(self, pixels: np.ndarray, image_size: tuple[int, int] | None = None) -> dict[str, np.ndarray]:
        """All outputs of the network by name, for one image: (1, C, H, W) resized uint8 pixels.

        Args:
            pixels: of the image, perhaps filled up.
            image_size: height and width of the resized image without what is filled up; None where it is all of it.
        """
        return self._engine.answers(pixels, image_size)

    def __call__(
        self, images: Iterable[ImageLike] | ImageLike, k: int = 5, batch_size: int = 16, score: float = 0.0
    ) -> list[Answer]:
        """Answers for paths, folders, PIL images, uint8 arrays (H, W), (H, W, 3) or (H, W, 4), or batches of them.

        Raises:
            UserError: an image cannot be read; `stream` goes on instead.
        """
        answers = []
        for answer in self.stream(images, k, batch_size, score):
            if isinstance(answer, Failure):
                raise UserError(answer.reason)
            answers.append(answer)
        return answers

    def stream(
        self, images: Iterable[ImageLike] | ImageLike, k: int = 5, batch_size: int = 16, score: float = 0.0
    ) -> Iterator[Answer | Failure]:
        """Answers for any number of images, in order; what cannot be read is yielded as a Failure.

        Threads decode the next batch while the model computes one; no more than two batches are in memory.

        Args:
            images: as `__call__` takes them; a generator is read as it is needed.
            k: classes for each, of a classifier.
            batch_size: images a step of a classifier; those of the other tasks have sizes of their own, and go one at a
                time.
            score: of a detector's objects, the least.
        """
        if k < 1 or batch_size < 1:
            raise UserError(f"k and batch_size must be at least 1, got {k} and {batch_size}")
        if not 0 <= score <= 1:
            raise UserError(f"score must be in 0 to 1, got {score}")
        with ThreadPoolExecutor(DECODERS) as pool:
            named = _named(images)
            waiting, names = self._submit(pool, named, batch_size)
            while waiting:
                coming, coming_names = self._submit(pool, named, batch_size)
                yield from self._answers(names, [future.result() for future in waiting], k, score)
                waiting, names = coming, coming_names

    def _submit(
        self, pool: ThreadPoolExecutor, named: Iterator[tuple[str, ImageLike]], count: int
    ) -> tuple[list[Future[Shown | Failure]], list[str]]:
        chunk = list(islice(named, count))
        return [pool.submit(self._decoded, *item) for item in chunk], [name for name, _ in chunk]

    def _decoded(self, name: str, image: ImageLike) -> Shown | Failure:
        try:
            rgb = _rgb(image)
            pixels = eval_array(rgb.convert("L") if self._channels == 1 else rgb, self.preprocessing)
            return Shown(pixels, (rgb.height, rgb.width))
        except UserError as error:
            return Failure(name, str(error))

    def _answers(
        self, names: list[str], decoded: list[Shown | Failure], k: int, score: float
    ) -> Iterator[Answer | Failure]:
        if self.task == "classification":
            readable = [shown.pixels for shown in decoded if isinstance(shown, Shown)]
            labels = iter(decode(softmax(self._engine(np.stack(readable))), self.classes, k) if readable else [])
        for name, shown in zip(names, decoded, strict=True):
            if isinstance(shown, Failure):
                yield shown
            elif self.task == "classification":
                yield Prediction(name, next(labels))
            else:
                yield self._dense(name, shown, score)

    def _dense(self, name: str, shown: Shown, score: float) -> Answer:
        fitted = fitted_size(shown.size, self.preprocessing)
        answers = self._engine.answers(shown.pixels[None], fitted)
        if self.task == "detection":
            return detection.predict(answers, name, fitted, shown.size, self.classes, score)
        if self.task == "hand_mesh":
            return hand_mesh.predict(answers, name, self.preprocessing.size, fitted, shown.size, self._faces)
        return segmentation.predict(answers, name, fitted, shown.size, self.classes)


def _engine(
    source: TaskModel | str | Path,
    device: str,
    runtime: str,
    precision: Precision | None,
    threads: int | None,
    prepare: Callable[[TaskModel], TaskModel] | None,
    kernels: bool,
    allow_native_code: bool,
) -> Engine:
    if isinstance(source, (str, Path)) and is_artifact(source):
        engine = ArtifactEngine(Path(source), runtime, threads, allow_native_code=allow_native_code)
        if precision not in (None, engine.artifact.signature.precision):
            raise UserError(f"{source} computes in {engine.artifact.signature.precision}, not in {precision}")
        return engine
    in_torch = ("torch",) if isinstance(source, (str, Path)) else ("torch", "auto")
    dense = isinstance(source, (str, Path)) and read_task(source) != "classification"
    if device == "cpu" and prepare is None and runtime not in in_torch and not (dense and runtime == "auto"):
        try:
            path, name, folder = deployed(source, runtime, precision or "fp32")
        except OSError as error:
            reason = f"cannot export {source} to a temporary folder: {error.strerror or error}"
            advice = "set FASTVIT_CACHE to a folder that can be written"
            if runtime != "auto":
                raise UserError(f"{reason}; {advice}, or leave runtime as it is") from error
            warnings.warn(f"{reason}; it runs in PyTorch, which is slower: {advice}", stacklevel=3)
        else:
            return ArtifactEngine(path, name, threads, folder)
    half = device.startswith("cuda") and precision in ("fp16", "bf16")
    if runtime not in ("auto", "torch") or (precision not in (None, "fp32") and not half):
        raise UserError(
            f"in PyTorch, or on {device}, a checkpoint runs in fp32, or on cuda in fp16 or bf16: leave runtime and "
            "precision as they are"
        )
    from fastvit.fusion import fuse
    from fastvit.weights.native import load

    model = load(source) if isinstance(source, (str, Path)) else source
    if half and model.task == "detection":
        raise UserError(f"a detector runs in fp32, not in {precision}")
    return TorchEngine((prepare or fuse)(model), device, precision or "fp32", kernels)


def _named(images: Iterable[ImageLike] | ImageLike) -> Iterator[tuple[str, ImageLike]]:
    """Every single image, with what to call it."""
    single = isinstance(images, (str, Path, Image.Image)) or (_is_array(images) and cast(Any, images).ndim < 4)
    several = cast(Iterable[ImageLike], [images] if single else images)
    count = 0
    for image in several:
        for name, one in _parts(image, count):
            count += 1
            yield name, one


def _parts(image: Any, count: int) -> Iterator[tuple[str, ImageLike]]:
    if isinstance(image, (str, Path)):
        for path in find_images([image]) if Path(image).is_dir() else [image]:
            yield str(path), path
    elif _is_array(image):
        array = np.asarray(image)
        for i, one in enumerate(array if array.ndim == 4 else [array]):
            yield f"image {count + i}", one
    else:
        yield f"image {count}", image


def _is_array(image: Any) -> bool:
    """An array, or a tensor, of whose library nothing is loaded here."""
    return isinstance(image, np.ndarray) or type(image).__module__.partition(".")[0] == "torch"


def _rgb(image: ImageLike) -> Image.Image:
    if isinstance(image, Image.Image):
        return to_rgb(image)
    if isinstance(image, np.ndarray):
        if image.dtype != np.uint8:
            raise UserError(f"arrays must be uint8 with pixels in 0..255, this one is {image.dtype}")
        return to_rgb(Image.fromarray(image))
    return read_image(image)
