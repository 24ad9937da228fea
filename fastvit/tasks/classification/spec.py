"""The classification task, as the rest of the package uses it. Needs no torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from fastvit.data.augmentation import Augmentation
from fastvit.errors import UserError
from fastvit.reports.metric_format import LOSS, TOP1, Metric
from fastvit.tasks.classification.options import Distillation, MixupOptions
from fastvit.tasks.spec import TaskSpec

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image

    from fastvit.data.module import RunImages
    from fastvit.evaluation.measurement import EvaluationRequest, Measurement
    from fastvit.export.pictures import Pictures
    from fastvit.model.classifier import FastViT
    from fastvit.model.preprocessing import Preprocessing
    from fastvit.model.task_model import TaskModel
    from fastvit.predict.prediction import Limits, PreprocessedImage
    from fastvit.predict.predictor import Predictor
    from fastvit.runs.evaluation_data import EvaluationData
    from fastvit.tasks.classification.data import ClassificationData
    from fastvit.tasks.classification.module import ClassificationTask
    from fastvit.tasks.classification.prediction import ClassPrediction
    from fastvit.training.options import Recipe
    from fastvit.training.task import Configure
    from fastvit.weights.description import Description


class ClassificationSpec(TaskSpec):
    """Image classification: one class per image."""

    name = "classification"
    headline = "top1"
    metrics: ClassVar[Mapping[str, Metric]] = {
        "top1": TOP1,
        "top5": Metric("top-5", compared=False),
        "loss": LOSS,
        "ece": Metric("calibration error (ECE)", lower_is_better=True),
        "real_top1": Metric("ReaL top-1", compared=False),
        "real_top5": Metric("ReaL top-5", compared=False),
    }
    sections: ClassVar[Mapping[str, type]] = {
        "augmentation": Augmentation,
        "mixup": MixupOptions,
        "distillation": Distillation,
    }
    unused_fields: ClassVar[Mapping[str, str]] = {}
    labels_images = True
    batched = True
    int8 = True
    outputs = ("logits", "probabilities")

    def model_class(self) -> type[TaskModel]:
        from fastvit.model.classifier import FastViT

        return FastViT

    def check(self, recipe: Recipe) -> None:
        mixup: MixupOptions = recipe.sections["mixup"]
        if recipe.batch_size % 2 and (mixup.mixup or mixup.cutmix):
            raise UserError(
                f"mixup and CutMix pair the images of a batch: batch_size must be even, got {recipe.batch_size}"
            )

    def open_images(self, recipe: Recipe) -> RunImages:
        from fastvit.runs.files import SPLIT
        from fastvit.tasks.classification.data import open_for_run

        split_file = recipe.out / SPLIT if recipe.resume else None
        return open_for_run(recipe.data, recipe.val_fraction, recipe.seed, split_file)

    def create_model(self, recipe: Recipe, classes: tuple[str, ...], backbone: Mapping[str, Any]) -> FastViT:
        from fastvit.create import create_model

        return create_model(recipe.model.name, recipe.model.pretrained, classes=classes, **backbone)

    def create_data(self, recipe: Recipe, images: RunImages, preprocessing: Preprocessing) -> ClassificationData:
        from fastvit.tasks.classification.data import ClassificationData

        augmentation = recipe.sections["augmentation"]
        return ClassificationData(images, preprocessing, recipe.batch_size, augmentation, **recipe.loading)

    def create_module(self, recipe: Recipe, model: Any, configure: Configure) -> ClassificationTask:
        from fastvit.tasks.classification.module import ClassificationTask
        from fastvit.tasks.classification.teacher import load_teacher

        distillation: Distillation = recipe.sections["distillation"]
        teacher = load_teacher(distillation) if distillation.teacher else None
        erasing = recipe.sections["augmentation"].random_erasing
        return ClassificationTask(model, recipe.sections["mixup"], configure, erasing, teacher, distillation)

    def decode(
        self, outputs: Mapping[str, np.ndarray], shown: PreprocessedImage, network: Description, limits: Limits
    ) -> ClassPrediction:
        from fastvit.tasks.classification.prediction import ClassPrediction, decode, softmax

        found = outputs["probabilities"] if "probabilities" in outputs else softmax(outputs["logits"])
        (labels,) = decode(found, network.classes, limits.k)
        return ClassPrediction(shown.name, labels)

    def draw(self, image: Image.Image, prediction: Any) -> Image.Image:
        from fastvit.tasks.classification.drawing import draw

        return draw(image, prediction)

    def table_header(self, network: Description, limits: Limits) -> list[str]:
        return [f"top {i + 1}" for i in range(min(limits.k, network.config.num_classes))]

    def validation_images(self, data: EvaluationData, network: Description) -> Any:
        images = data.images("test", network.classes)
        if len(images.classes) != network.config.num_classes:
            raise UserError(
                f"{data.source} has {len(images.classes)} classes, but the network has {network.config.num_classes}: "
                "give --data with the classes of the network"
            )
        return images

    def evaluate(self, predictor: Predictor, images: Any, request: EvaluationRequest) -> Measurement:
        from fastvit.tasks.classification.evaluation import measure

        return measure(predictor, images, request)

    def resized(self, preprocessing: Preprocessing, request: EvaluationRequest) -> Preprocessing:
        size = request.size
        if size and size[0] != size[1]:
            raise UserError(f"a classifier needs square images: give --size one number, not {size[0]}x{size[1]}")
        return preprocessing.with_size(size[0] if size else None, request.crop_pct)

    def pictures(self, model: TaskModel, data: EvaluationData, count: int) -> Pictures:
        from fastvit.data.subset import limited
        from fastvit.export.pictures import Pictures

        source = limited(data.images("test"), count)
        labels = list(source.labels) if source.classes == model.classes else None
        images = [source.image(i) for i in range(len(source))]
        return Pictures(f"{len(source)} images of {data.source}", images, labels)

    def calibration_images(self, model: TaskModel, data: EvaluationData, count: int) -> list[Image.Image]:
        from fastvit.export.quantize.calibration import chosen

        source = data.images("train")
        if source.classes != model.classes:
            raise UserError(
                f"int8 is calibrated on training images with the classes of the model, but {data.source} has others: "
                "give --data"
            )
        return [source.image(index) for index in chosen(len(source), count)]


SPEC = ClassificationSpec()
