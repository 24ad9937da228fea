"""Images in, decoded predictions out, from a model, a checkpoint or an exported artifact.

Neither this module nor anything that an artifact needs imports torch.
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
# Decoding mostly releases the GIL; more threads than this would only wait for the model.
DECODERS = 4


class Predictor:
    """A model of any task that predicts from images, with its own preprocessing and class names.

    Threads may share it: if the runtime computes one call at a time, others wait.

    Args:
        source: model in any form, checkpoint, run directory or other weights that `fastvit.load` takes, or artifact of
            `fastvit export`.
        device: device of PyTorch, such as "cpu" or "cuda"; artifacts run on the CPU.
        runtime: name of the runtime. "auto" chooses: for an artifact the first installed runtime that reads it; for the
            checkpoint of a classifier on the CPU OpenVINO if it is installed, else ONNX Runtime (the first use exports
            it, which takes seconds, to a cache, see `fastvit.predict.deployment`); otherwise PyTorch.
        precision: "fp32"; in ONNX Runtime also "fp16", in OpenVINO and in PyTorch on a GPU also "fp16" and "bf16", on a
            GPU not for detectors. None for float32, or the precision of the artifact.
        threads: number of threads, if the runtime supports it; None for its default.
        prepare: function from a model to the copy that runs in PyTorch; by default `fastvit.fuse`. With it, a
            checkpoint runs in PyTorch.
        kernels: run fused models on a GPU with the kernels of `fastvit.accelerate` if they support it.
        allow_native_code: also load AOTInductor packages (.aoti.pt2), which contain machine code. It runs with your
            rights and is not checked.

    Attributes:
        network: description of the network: variant, task, classes, preprocessing.
        spec: task of the network.
        runtime: "torch", "onnxruntime", ...; on a GPU also "torch fp16", or "kernels fp16" for `fastvit.accelerate`.
        device: device that it runs on.

    Raises:
        UserError: the source is missing or corrupt, its runtime is not available, or it contains native code that is
            not allowed.
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
        """Names of the classes; None if the source has no names."""
        return self.network.classes

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return self.network.config.num_classes

    @property
    def options(self) -> Any:
        """Options of the network, such as those of a detector; None for classifiers."""
        return self.network.options

    @property
    def preprocessing(self) -> Preprocessing:
        """Preprocessing of the images: size, resizing, mean and std."""
        return self.network.preprocessing

    @property
    def _channels(self) -> int:
        return self.network.config.in_chans

    def with_preprocessing(self, preprocessing: Preprocessing) -> Predictor:
        """Return a Predictor of the same network with another size, crop or resizing of the images.

        Raises:
            UserError: mean or std differ from those that the network was trained with.
        """
        if (preprocessing.mean, preprocessing.std) != (self.preprocessing.mean, self.preprocessing.std):
            raise UserError(
                "mean and std cannot be changed, the network was trained with them: change only size, crop and resizing"
            )
        other = copy(self)
        other.network = replace(self.network, preprocessing=preprocessing)
        return other

    def logits(self, images: Tensor) -> Tensor:
        """Return (B, classes) logits on the CPU for (B, C, H, W) images: normalized float32, or resized uint8 pixels.

        Raises:
            UserError: the model is not a classifier.
        """
        if not self.spec.labels_images:
            raise UserError(
                f"a model for {self.task} does not output logits of classes: call the Predictor with images"
            )
        return self._engine.logits(images)

    def outputs(self, pixels: np.ndarray, image_size: tuple[int, int] | None = None) -> dict[str, np.ndarray]:
        """Return the raw outputs of the network by name.

        Args:
            pixels: (B, C, H, W) uint8, resized; one image, possibly padded, for detectors and segmenters.
            image_size: height and width of the resized image without padding; None if it has no padding.
        """
        return self._engine.outputs(pixels, image_size)

    def __call__(
        self, images: Iterable[ImageLike] | ImageLike, k: int = 5, batch_size: int = 16, score: float = 0.0
    ) -> list[Prediction]:
        """Return the predictions for images.

        Args:
            images: one or several paths, folders, PIL images, or uint8 arrays or tensors (H, W), (H, W, 3), (H, W, 4),
                or (N, H, W, C).
            k: number of classes per image, for classifiers.
            batch_size: number of images that are computed together.
            score: score threshold of objects, for detectors.

        Raises:
            UserError: an image cannot be read (`stream` continues instead), or an option is out of range.
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
        """Yield predictions for any number of images, in order; an unreadable image gives a Failure.

        Threads decode the next batch while the model computes one; at most two batches are in memory.

        Args:
            images: see `__call__`; a generator is consumed as needed.
            k: number of classes per image, for classifiers.
            batch_size: number of images that are computed together; detectors compute one image at a time.
            score: score threshold of objects, for detectors.

        Raises:
            UserError: an option is out of range.
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
    if precision == "int8":
        raise UserError(
            "precision int8 is not available for a checkpoint: export it with fastvit export --precision int8 and use "
            "the artifact"
        )
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
            f"a checkpoint runs in fp32 in PyTorch on {device} (on cuda also fp16 and bf16), got runtime {runtime} and "
            f"precision {precision}: leave them at their defaults"
        )
    from fastvit.fusion import fuse
    from fastvit.weights.native import load

    model = load(source) if isinstance(source, (str, Path)) else source
    if half and not find_task(model.task).half_precision:
        raise UserError(f"a model for {model.task} runs in fp32, not in {precision}")
    return TorchEngine((prepare or fuse)(model), device, precision or "fp32", kernels)


def _named(images: Iterable[ImageLike] | ImageLike) -> Iterator[tuple[str, ImageLike]]:
    """Yield each image with its name."""
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
    """Return whether an image is an array or a tensor, without importing torch."""
    return isinstance(image, np.ndarray) or type(image).__module__.partition(".")[0] == "torch"


def _rgb(image: ImageLike) -> Image.Image:
    if isinstance(image, Image.Image):
        return to_rgb(image)
    if isinstance(image, np.ndarray):
        if image.dtype != np.uint8:
            raise UserError(f"arrays must be uint8 with pixels from 0 to 255, got {image.dtype}")
        return to_rgb(Image.fromarray(image))
    return read_image(image)
