"""Images in, decoded predictions out, from a model, a checkpoint or an exported artifact.

What runs an artifact loads no torch: importing this does not, and nothing on an artifact's way does.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from copy import copy
from dataclasses import replace
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
from fastvit.predict.prediction import Failure, Limits, Prediction, PreprocessedImage
from fastvit.runtime.artifact import Precision, is_artifact
from fastvit.tasks.table import find_task
from fastvit.weights.description import read_task

if TYPE_CHECKING:
    from torch import Tensor

    from fastvit.fusion import Form
    from fastvit.model.preprocessing import Preprocessing
    from fastvit.model.task_model import TaskModel

Outputs = dict[str, np.ndarray]
ImageLike = str | Path | Image.Image | np.ndarray
# Decoding releases the GIL for most of its time; more threads than this only wait for the model.
DECODERS = 4


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
        network: what the source says of it.
        spec: its task.
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
        self.network = self._engine.description
        self.spec = find_task(self.network.task)
        self.runtime, self.device = self._engine.runtime, self._engine.device
        if self._channels not in (1, 3):
            raise UserError(f"images have 1 or 3 channels, this model takes {self._channels}")

    @property
    def task(self) -> str:
        """Name of the task."""
        return self.network.task

    @property
    def form(self) -> Form:
        """Form of the network that runs: "train", "reparameterized" or "fused"."""
        return self.network.form

    @property
    def classes(self) -> tuple[str, ...] | None:
        """Names of the classes; None where the source has none."""
        return self.network.classes

    @property
    def num_classes(self) -> int:
        """How many classes there are."""
        return self.network.config.num_classes

    @property
    def options(self) -> Any:
        """What else the network is built from, of a task that has such options; else None."""
        return self.network.options

    @property
    def preprocessing(self) -> Preprocessing:
        """What is done to every image."""
        return self.network.preprocessing

    @property
    def _channels(self) -> int:
        return self.network.config.in_chans

    def with_preprocessing(self, preprocessing: Preprocessing) -> Predictor:
        """Return a Predictor of the same network for images of another size, or cut out in another way.

        Raises:
            UserError: mean or std differ, with which the network has learnt.
        """
        if (preprocessing.mean, preprocessing.std) != (self.preprocessing.mean, self.preprocessing.std):
            raise UserError("mean and std belong to the network: only size, crop and resizing can be others")
        other = copy(self)
        other.network = replace(self.network, preprocessing=preprocessing)
        return other

    def logits(self, images: Tensor) -> Tensor:
        """(B, classes) logits, on the CPU, of (B, C, H, W) images: preprocessed float32, or resized uint8 pixels.

        Raises:
            UserError: it is no classifier.
        """
        if not self.spec.labels_images:
            raise UserError(f"a model for {self.task} gives no classes of images: call the Predictor with images")
        return self._engine.logits(images)

    def outputs(self, pixels: np.ndarray, image_size: tuple[int, int] | None = None) -> dict[str, np.ndarray]:
        """All outputs of the network by name, for one image: (1, C, H, W) resized uint8 pixels.

        Args:
            pixels: of the image, perhaps filled up.
            image_size: height and width of the resized image without what is filled up; None where it is all of it.
        """
        return self._engine.outputs(pixels, image_size)

    def __call__(
        self, images: Iterable[ImageLike] | ImageLike, k: int = 5, batch_size: int = 16, score: float = 0.0
    ) -> list[Prediction]:
        """Predictions for paths, folders, PIL images, uint8 arrays (H, W), (H, W, 3) or (H, W, 4), or batches of them.

        Raises:
            UserError: an image cannot be read; `stream` goes on instead.
        """
        predictions = []
        for prediction in self.stream(images, k, batch_size, score):
            if isinstance(prediction, Failure):
                raise UserError(prediction.reason)
            predictions.append(prediction)
        return predictions

    def stream(
        self, images: Iterable[ImageLike] | ImageLike, k: int = 5, batch_size: int = 16, score: float = 0.0
    ) -> Iterator[Prediction | Failure]:
        """Predictions for any number of images, in order; what cannot be read is yielded as a Failure.

        Threads decode the next batch while the model computes one; no more than two batches are in memory.

        Args:
            images: as `__call__` takes them; a generator is read as it is needed.
            k: classes for each, of a classifier.
            batch_size: images a step of a classifier; those of the other tasks have sizes of their own, and go one at a
                time.
            score: of a detector's objects, the least.
        """
        if batch_size < 1:
            raise UserError(f"batch_size must be at least 1, got {batch_size}")
        limits = Limits(k, score)
        with ThreadPoolExecutor(DECODERS) as pool:
            named = _named(images)
            waiting = self._submit(pool, named, batch_size)
            while waiting:
                coming = self._submit(pool, named, batch_size)
                yield from self._predictions([future.result() for future in waiting], limits)
                waiting = coming

    def _submit(
        self, pool: ThreadPoolExecutor, named: Iterator[tuple[str, ImageLike]], count: int
    ) -> list[Future[PreprocessedImage | Failure]]:
        return [pool.submit(self._decoded, *item) for item in islice(named, count)]

    def _decoded(self, name: str, image: ImageLike) -> PreprocessedImage | Failure:
        try:
            rgb = _rgb(image)
            pixels = eval_array(rgb.convert("L") if self._channels == 1 else rgb, self.preprocessing)
            size = rgb.height, rgb.width
            return PreprocessedImage(name, pixels, size, fitted_size(size, self.preprocessing))
        except UserError as error:
            return Failure(name, str(error))

    def _predictions(
        self, decoded: list[PreprocessedImage | Failure], limits: Limits
    ) -> Iterator[Prediction | Failure]:
        readable = [shown for shown in decoded if isinstance(shown, PreprocessedImage)]
        outputs = self._in_batch(readable) if self.spec.batched else map(self._alone, readable)
        predictions = (
            self.spec.decode(found, shown, self.network, limits) for found, shown in zip(outputs, readable, strict=True)
        )
        for shown in decoded:
            yield shown if isinstance(shown, Failure) else next(predictions)

    def _alone(self, shown: PreprocessedImage) -> Outputs:
        return self._engine.outputs(shown.pixels[None], shown.fitted)

    def _in_batch(self, images: list[PreprocessedImage]) -> Iterator[Outputs]:
        if images:
            found = self._engine.outputs(np.stack([shown.pixels for shown in images]))
            yield from ({name: rows[i : i + 1] for name, rows in found.items()} for i in range(len(images)))


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
    single = isinstance(source, (str, Path)) and not find_task(read_task(source)).batched
    if device == "cpu" and prepare is None and runtime not in in_torch and not (single and runtime == "auto"):
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
    if half and not find_task(model.task).half_precision:
        raise UserError(f"a model for {model.task} runs in fp32, not in {precision}")
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
