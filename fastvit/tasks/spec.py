"""The protocol between a task and the rest of the package. Needs no torch."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

from fastvit.errors import UserError
from fastvit.reports.metric_format import Metric

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image

    from fastvit.data.datasets import ImageSource
    from fastvit.data.module import RunData, RunImages
    from fastvit.evaluation.measurement import EvaluationRequest, Measurement
    from fastvit.export.options import ExportOptions
    from fastvit.export.pictures import Pictures
    from fastvit.export.proof import Proof
    from fastvit.model.preprocessing import Preprocessing
    from fastvit.model.task_model import TaskModel
    from fastvit.predict.prediction import Limits, Prediction, PreprocessedImage
    from fastvit.predict.predictor import Predictor
    from fastvit.runs.evaluation_data import EvaluationData
    from fastvit.runtime.artifact import Artifact
    from fastvit.training.options import Recipe
    from fastvit.training.task import Configure, Task
    from fastvit.weights.description import Description


class TaskSpec(ABC):
    """A task: all that training, evaluation, prediction, export and benchmarks know of it.

    One instance is a row of `fastvit.tasks.table.TASKS`, or is registered with `fastvit.register_task`. Modules that
    need torch are imported in the methods, because a process that runs an artifact does without.

    Attributes:
        name: in files, recipes and on the command line.
        headline: the metric by which the best weights of a run are chosen, a key of `metrics`.
        metrics: how each metric is shown.
        curves: the metrics that plots of a training run show, the headline first.
        sections: sections of a recipe that are the task's own, as dataclasses.
        unused_fields: common fields of a recipe that the task does not use, with what to do instead. A task whose
            images can be divided, or whose norm statistics can be measured anew, takes these out.
        options: the frozen dataclass of what its network is built from beside the backbone; None where there is none.
        labels_images: whether the network predicts one class for an image: `Predictor.logits` and the robustness
            suites are for these.
        batched: whether prediction and artifacts take images in batches; else one at a time.
        half_precision: whether the network runs in float16 and bfloat16 on a GPU.
        int8: whether artifacts in int8 and with palettized weights are offered.
        mesh_suffixes: of files in which the mesh of a prediction can be written; empty where there is no mesh.
        heads: names of networks that `fastvit bench HEAD-VARIANT` times, for `create_untrained`.
        scored: whether predictions have scores, of which `fastvit predict --score` leaves out the low ones.
        proved_on_pictures: whether a fused network is compared on real images: noise has no objects, for instance.
        outputs: the outputs that an export may have beside the backbone's "features": what the network gives, under one
            name, which is the default, and "probabilities" where its softmax over dimension 1 is offered.
    """

    name: ClassVar[str]
    headline: ClassVar[str]
    metrics: ClassVar[Mapping[str, Metric]]
    curves: ClassVar[Sequence[str]] = ()
    sections: ClassVar[Mapping[str, type]] = {}
    unused_fields: ClassVar[Mapping[str, str]] = dict.fromkeys(("val_fraction", "ema.recalibrate"), "leave it out")
    options: ClassVar[type | None] = None
    labels_images: ClassVar[bool] = False
    batched: ClassVar[bool] = False
    half_precision: ClassVar[bool] = True
    int8: ClassVar[bool] = False
    mesh_suffixes: ClassVar[tuple[str, ...]] = ()
    heads: ClassVar[Sequence[str]] = ()
    scored: ClassVar[bool] = False
    proved_on_pictures: ClassVar[bool] = False
    outputs: ClassVar[Sequence[str]] = ("logits",)

    @property
    def headline_metric(self) -> Metric:
        """How the headline is shown."""
        return self.metrics[self.headline]

    @property
    def own_options(self) -> tuple[str, ...]:
        """Options of `fastvit predict` and `fastvit eval` that this task has, but not every task."""
        having = {
            "k": self.labels_images,
            "crop_pct": self.labels_images,
            "real_labels": self.labels_images,
            "batch_size": self.batched,
            "score": self.scored,
            "mesh": bool(self.mesh_suffixes),
        }
        return tuple(name for name, has in having.items() if has)

    @property
    def curve_metrics(self) -> dict[str, Metric]:
        """How each metric of `curves` is shown."""
        return {name: self.metrics[name] for name in self.curves or (self.headline,)}

    # The network

    @abstractmethod
    def model_class(self) -> type[TaskModel]:
        """Return the class of the task's networks."""

    def make_options(self, values: Mapping[str, Any] | None) -> Any:
        """Return `options` from plain values; fields that are missing get their defaults.

        Raises:
            UserError: a name is unknown, or a value makes no sense.
        """
        if self.options is None:
            return None
        try:
            return self.options(**(values or {}))
        except TypeError as error:
            raise UserError(f"the description of the {self.name} network does not fit: {error}") from error

    def create_untrained(self, head: str, variant: str) -> TaskModel:
        """Return a network of `heads` on a variant, with random weights and the task's usual number of classes."""
        raise UserError(f"{self.name} has no network called {head!r}")

    # Training

    def check(self, recipe: Recipe) -> None:
        """Check the fields of a recipe that have to fit each other.

        Raises:
            UserError: they do not; the message names the fields.
        """

    def image_size(self, recipe: Recipe) -> tuple[int, int]:
        """Return the size of images that a recipe asks for, as `Preprocessing.size` has it."""
        return recipe.model.size, recipe.model.size

    @abstractmethod
    def open_images(self, recipe: Recipe) -> RunImages:
        """Open the training and validation images of a recipe.

        Raises:
            UserError: there are no such data, or they do not fit the recipe.
        """

    @abstractmethod
    def create_model(self, recipe: Recipe, classes: tuple[str, ...], backbone: Mapping[str, Any]) -> TaskModel:
        """Return the complete network of a recipe, in train form.

        Args:
            recipe: the recipe.
            classes: names of the classes, from the data.
            backbone: keyword arguments for the task's creation function: "drop_path", other fields of `FastViTConfig`,
                and "preprocessing", the fields of `Preprocessing` that recipe and weights set, "size" among them.
        """

    @abstractmethod
    def create_data(self, recipe: Recipe, images: RunImages, preprocessing: Preprocessing) -> RunData:
        """Return the batches of a run."""

    @abstractmethod
    def create_module(self, recipe: Recipe, model: TaskModel, configure: Configure) -> Task:
        """Return the LightningModule that trains a network."""

    # Prediction

    @abstractmethod
    def decode(
        self, outputs: Mapping[str, np.ndarray], shown: PreprocessedImage, network: Description, limits: Limits
    ) -> Prediction:
        """Return the prediction for one image.

        Args:
            outputs: of the network for it, by name, each with a first dimension of 1.
            shown: the image: its name and sizes.
            network: of which the outputs are: classes, options, preprocessing.
            limits: what is left out.
        """

    @abstractmethod
    def draw(self, image: Image.Image, prediction: Prediction) -> Image.Image:
        """Return an image with a prediction drawn into it."""

    def table_header(self, limits: Limits) -> list[str]:
        """Return the heads of the columns that `Prediction.cells` fills."""
        return ["found"]

    # Evaluation

    @abstractmethod
    def validation_images(self, data: EvaluationData, network: Description) -> ImageSource:
        """Open the validation images of a data source.

        Args:
            data: the source.
            network: whose classes the labels follow.
        """

    @abstractmethod
    def evaluate(self, predictor: Predictor, images: Any, request: EvaluationRequest) -> Measurement:
        """Measure a network on images that `validation_images` opened."""

    def resized(self, preprocessing: Preprocessing, request: EvaluationRequest) -> Preprocessing:
        """Return the preprocessing for the size that an evaluation asks for."""
        return request.within(preprocessing)

    def ground_truth(self, images: ImageSource, index: int, network: Description) -> Prediction | None:
        """Return the annotation of an image in the form of a prediction; None where examples are not drawn."""
        return None

    # Export

    def check_export(self, options: ExportOptions, output: str) -> None:
        """Check what is asked of an export.

        Raises:
            UserError: the network cannot be exported so; the message says what can be done.
        """

    def prepare_export(self, model: TaskModel) -> None:
        """Change a copy of the fused network to what an artifact computes."""

    def export_shape(
        self, preprocessing: Preprocessing, output: str, size: tuple[int, int] | None
    ) -> tuple[tuple[int, int], Preprocessing]:
        """Return height and width of an artifact's images, and the preprocessing that it says.

        Args:
            preprocessing: of the network.
            output: of the artifact.
            size: that is asked for; None for the network's own.
        """
        chosen = size or preprocessing.fixed_size
        return chosen, preprocessing.with_shape(chosen)

    def pictures(self, model: TaskModel, data: EvaluationData, count: int) -> Pictures:
        """Return real images that an artifact and its network are compared on."""
        from fastvit.export.pictures import spread
        from fastvit.weights.description import Description

        if data.source == "sample" and (made := self.synthetic_pictures(count)):
            return made
        # Data of any classes will do: only the images are used.
        network = replace(Description.of(model), classes=None)
        return spread(self.validation_images(data, network), data.source, count)

    def synthetic_pictures(self, count: int) -> Pictures | None:
        """Return pictures that stand for the embedded sample, of a task that it is not for; else None."""
        return None

    def calibration_images(self, model: TaskModel, data: EvaluationData, count: int) -> list[Image.Image]:
        """Return training images to measure the ranges of int8 on.

        Raises:
            UserError: the task has no int8.
        """
        raise UserError(f"int8 is not available for {self.name}: give --precision fp32 or fp16")

    def prove(
        self, model: TaskModel, artifact: Artifact, pictures: Sequence[Image.Image], labels: Sequence[int] | None
    ) -> Proof:
        """Compare an artifact with its network on the same images."""
        from fastvit.export.proof import prove_outputs

        proof = prove_outputs(model, artifact, pictures, labels, step=16 if self.batched else 1)
        return proof if self.labels_images else proof.without_top1()

    def prove_fusion(self, model: TaskModel, fused: TaskModel, pictures: Sequence[Image.Image]) -> Proof:
        """Compare a fused network with the one that it was made from.

        Args:
            model: the reference.
            fused: the same, fused.
            pictures: real images, for a task that is `proved_on_pictures`; others are compared on noise.
        """
        from fastvit.export.proof import prove_on_noise

        proof = prove_on_noise(model, fused)
        return proof if self.labels_images else proof.without_top1()


def with_own_size(field: str) -> dict[str, str]:
    """Return `unused_fields` of a task whose images' size is a field of its own section."""
    return {**TaskSpec.unused_fields, "model.size": f"give {field}"}
