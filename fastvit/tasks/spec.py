"""The interface between a task and the rest of the package. Needs no torch."""

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
    """A task: everything that training, evaluation, prediction, export and benchmarks need to handle its networks.

    Each task has one instance, in `fastvit.tasks.table.TASKS` or registered with `fastvit.register_task`. The methods
    import modules that need torch themselves, because a process that runs an artifact does not load torch.

    Attributes:
        name: name in files, in recipes and on the command line.
        headline: metric that selects the best weights of a run, a key of `metrics`.
        metrics: label and unit of each metric, by its key.
        curves: metrics that plots of a training run show, the headline first.
        sections: dataclasses of the recipe sections that belong to this task, by section name.
        unused_fields: common recipe fields that the task does not use, with what to do instead. A task that can split
            off validation images, or recompute batch norm statistics, removes these fields.
        options: frozen dataclass with the network's options beside the backbone; None if there are none.
        labels_images: True if the network predicts one class per image, as `Predictor.logits` and the robustness suites
            need.
        batched: True if prediction and artifacts take batches of images; otherwise one image at a time.
        half_precision: True if the network runs in float16 and bfloat16 on a GPU.
        int8: True if export to int8 and to palettized weights is available.
        mesh_suffixes: suffixes of the file formats for the mesh of a prediction; empty if there is no mesh.
        heads: names of the networks that `fastvit bench HEAD-VARIANT` measures, for `create_untrained`.
        scored: True if predictions have scores, which `fastvit predict --score` applies a threshold to.
        proved_on_pictures: True if a fused network has to be compared on real images, for instance because noise
            contains no objects.
        outputs: outputs that an export can have instead of the backbone's "features": the name of the network's raw
            output, which is the default, and "probabilities" if its softmax over dimension 1 is available.
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
        """Label and unit of the headline metric."""
        return self.metrics[self.headline]

    @property
    def own_options(self) -> tuple[str, ...]:
        """Options of `fastvit predict` and `fastvit eval` that this task supports and some other task does not."""
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
        """Label and unit of each metric of `curves`; by default of the headline."""
        return {name: self.metrics[name] for name in self.curves or (self.headline,)}

    # The network

    @abstractmethod
    def model_class(self) -> type[TaskModel]:
        """Return the class of the task's networks."""

    def make_options(self, values: Mapping[str, Any] | None) -> Any:
        """Return an instance of `options` from plain values; missing fields get their defaults.

        Raises:
            UserError: a name is unknown, or a value is out of range.
        """
        if self.options is None:
            return None
        try:
            return self.options(**(values or {}))
        except TypeError as error:
            raise UserError(f"the options of the {self.name} network are not valid: {error}") from error

    def create_untrained(self, head: str, variant: str) -> TaskModel:
        """Return a network of `heads` on a variant, with random weights and the task's usual number of classes.

        Raises:
            UserError: the task has no network of this name.
        """
        raise UserError(f"{self.name} has no network called {head!r}")

    # Training

    def check(self, recipe: Recipe) -> None:
        """Check that the fields of a recipe fit each other.

        Raises:
            UserError: two fields contradict each other; the message contains their names.
        """

    def image_size(self, recipe: Recipe) -> tuple[int, int]:
        """Return the image size of a recipe, in the form of `Preprocessing.size`: two lengths in pixels."""
        return recipe.model.size, recipe.model.size

    @abstractmethod
    def open_images(self, recipe: Recipe) -> RunImages:
        """Open the training and validation images of a recipe.

        Raises:
            UserError: the data do not exist, or do not fit the recipe.
        """

    @abstractmethod
    def create_model(self, recipe: Recipe, classes: tuple[str, ...], backbone: Mapping[str, Any]) -> TaskModel:
        """Return the complete network of a recipe, in train form.

        Args:
            recipe: recipe of the run.
            classes: names of the classes, from the data.
            backbone: keyword arguments for the task's creation function: "drop_path", other fields of `FastViTConfig`,
                and "preprocessing", the fields of `Preprocessing` that recipe and weights set, including "size".
        """

    @abstractmethod
    def create_data(self, recipe: Recipe, images: RunImages, preprocessing: Preprocessing) -> RunData:
        """Return the data module with the batches of a run.

        Args:
            recipe: recipe of the run.
            images: training and validation images, from `open_images`.
            preprocessing: preprocessing that the network expects.
        """

    @abstractmethod
    def create_module(self, recipe: Recipe, model: TaskModel, configure: Configure) -> Task:
        """Return the LightningModule that trains a network.

        Args:
            recipe: recipe of the run.
            model: network to train.
            configure: function that returns the optimizer and its schedule.
        """

    # Prediction

    @abstractmethod
    def decode(
        self, outputs: Mapping[str, np.ndarray], shown: PreprocessedImage, network: Description, limits: Limits
    ) -> Prediction:
        """Return the prediction for one image.

        Args:
            outputs: raw outputs of the network for the image, by name, each with a first dimension of 1.
            shown: preprocessed image, with its name and sizes.
            network: description of the network: classes, options, preprocessing.
            limits: number of classes and score threshold of the prediction.
        """

    @abstractmethod
    def draw(self, image: Image.Image, prediction: Prediction) -> Image.Image:
        """Return an image with a prediction drawn on it."""

    def table_header(self, network: Description, limits: Limits) -> list[str]:
        """Return the column headings for `Prediction.cells`.

        Args:
            network: description of the network.
            limits: number of classes and score threshold of the predictions.
        """
        return ["prediction"]

    # Evaluation

    @abstractmethod
    def validation_images(self, data: EvaluationData, network: Description) -> ImageSource:
        """Open the validation images of a data source.

        Args:
            data: data source.
            network: description of the network; its classes define the labels.
        """

    @abstractmethod
    def evaluate(self, predictor: Predictor, images: Any, request: EvaluationRequest) -> Measurement:
        """Measure a network on validation images.

        Args:
            predictor: network to measure.
            images: images from `validation_images`.
            request: options of the evaluation.
        """

    def resized(self, preprocessing: Preprocessing, request: EvaluationRequest) -> Preprocessing:
        """Return the preprocessing at the image size that an evaluation requests."""
        return request.within(preprocessing)

    def ground_truth(self, images: ImageSource, index: int, network: Description) -> Prediction | None:
        """Return the ground truth of an image in the form of a prediction; None if the task draws no examples.

        Args:
            images: images from `validation_images`.
            index: index of the image.
            network: description of the network.
        """
        return None

    # Export

    def check_export(self, options: ExportOptions, output: str) -> None:
        """Check that the network can be exported with these options.

        Raises:
            UserError: it cannot; the message says which options to change.
        """

    def prepare_export(self, model: TaskModel) -> None:
        """Change a copy of the fused network, in place, to what the artifact computes."""

    def export_shape(
        self, preprocessing: Preprocessing, output: str, size: tuple[int, int] | None
    ) -> tuple[tuple[int, int], Preprocessing]:
        """Return the height and width of an artifact's input, and the preprocessing that the artifact describes.

        Args:
            preprocessing: preprocessing of the network.
            output: name of the artifact's output.
            size: requested height and width, in pixels; None for the network's own.
        """
        chosen = size or preprocessing.fixed_size
        return chosen, preprocessing.with_shape(chosen)

    def pictures(self, model: TaskModel, data: EvaluationData, count: int) -> Pictures:
        """Return real images to compare an artifact with its network.

        Args:
            model: network that is exported.
            data: data source.
            count: largest number of images.
        """
        from fastvit.export.pictures import spread
        from fastvit.weights.description import Description

        if data.source == "sample" and (made := self.synthetic_pictures(count)):
            return made
        # Any classes will do, because only the images are used.
        network = replace(Description.of(model), classes=None)
        return spread(self.validation_images(data, network), data.source, count)

    def synthetic_pictures(self, count: int) -> Pictures | None:
        """Return synthetic images that replace the embedded sample, which fits classification only; None to use it."""
        return None

    def calibration_images(self, model: TaskModel, data: EvaluationData, count: int) -> list[Image.Image]:
        """Return training images for the calibration of int8.

        Args:
            model: network that is exported.
            data: data source.
            count: largest number of images.

        Raises:
            UserError: the task does not support int8.
        """
        raise UserError(f"int8 is not available for {self.name}: give --precision fp32 or fp16")

    def prove(
        self, model: TaskModel, artifact: Artifact, pictures: Sequence[Image.Image], labels: Sequence[int] | None
    ) -> Proof:
        """Compare an artifact with its network on the same images.

        Args:
            model: network that the artifact was exported from.
            artifact: artifact to verify.
            pictures: images to compare on.
            labels: classes of the images, for the top-1 accuracy of both; None if they are not available.
        """
        from fastvit.export.proof import prove_outputs

        proof = prove_outputs(model, artifact, pictures, labels, step=16 if self.batched else 1)
        return proof if self.labels_images else proof.without_top1()

    def prove_fusion(self, model: TaskModel, fused: TaskModel, pictures: Sequence[Image.Image]) -> Proof:
        """Compare a fused network with the original one.

        Args:
            model: original network, the reference.
            fused: fused network.
            pictures: real images, for a task with `proved_on_pictures`; other tasks compare on noise.
        """
        from fastvit.export.proof import prove_on_noise

        proof = prove_on_noise(model, fused)
        return proof if self.labels_images else proof.without_top1()


def with_own_size(field: str) -> dict[str, str]:
    """Return the `unused_fields` of a task that has the image size in its own recipe section, as `field`."""
    return {**TaskSpec.unused_fields, "model.size": f"give {field}"}
