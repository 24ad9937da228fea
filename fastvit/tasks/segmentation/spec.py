"""The segmentation task, as the rest of the package uses it. Needs no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any, ClassVar, cast

from fastvit.reports.metric_format import LOSS, Metric
from fastvit.tasks.segmentation.options import SegmentationOptions, SegmenterConfig, SegmenterHead
from fastvit.tasks.spec import TaskSpec, with_own_size

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image

    from fastvit.data.module import RunImages
    from fastvit.evaluation.measurement import EvaluationRequest, Measurement
    from fastvit.export.pictures import Pictures
    from fastvit.model.preprocessing import Preprocessing
    from fastvit.model.task_model import TaskModel
    from fastvit.predict.prediction import Limits, PreprocessedImage
    from fastvit.predict.predictor import Predictor
    from fastvit.runs.evaluation_data import EvaluationData
    from fastvit.tasks.segmentation.data import SegmentationData
    from fastvit.tasks.segmentation.model import Segmenter
    from fastvit.tasks.segmentation.module import SegmentationTask
    from fastvit.tasks.segmentation.prediction import SegmentationPrediction
    from fastvit.training.options import Recipe
    from fastvit.training.task import Configure
    from fastvit.weights.description import Description


class SegmentationSpec(TaskSpec):
    """Semantic segmentation: one class per pixel."""

    name = "segmentation"
    headline = "miou"
    metrics: ClassVar[Mapping[str, Metric]] = {
        "miou": Metric("mIoU"),
        "pixel_accuracy": Metric("pixel accuracy"),
        "mean_accuracy": Metric("mean accuracy"),
        "loss": LOSS,
    }
    curves = ("miou", "pixel_accuracy")
    sections: ClassVar[Mapping[str, type]] = {"segmentation": SegmentationOptions}
    unused_fields: ClassVar[Mapping[str, str]] = with_own_size("segmentation.size")
    options = SegmenterConfig
    heads = ("fpn", "upernet")
    outputs = ("logits", "probabilities")

    def model_class(self) -> type[TaskModel]:
        from fastvit.tasks.segmentation.model import Segmenter

        return Segmenter

    def create_untrained(self, head: str, variant: str) -> Segmenter:
        from fastvit.tasks.segmentation.create import create_segmenter

        return create_segmenter(variant, head=cast(SegmenterHead, head))

    def image_size(self, recipe: Recipe) -> tuple[int, int]:
        size: tuple[int, int] = recipe.sections["segmentation"].size
        return size

    def open_images(self, recipe: Recipe) -> RunImages:
        from fastvit.tasks.segmentation.data import open_for_run

        return open_for_run(recipe.data)

    def create_model(self, recipe: Recipe, classes: tuple[str, ...], backbone: Mapping[str, Any]) -> Segmenter:
        from fastvit.tasks.segmentation.create import create_segmenter

        own: SegmentationOptions = recipe.sections["segmentation"]
        name, pretrained = recipe.model.name, recipe.model.pretrained
        return create_segmenter(name, pretrained, classes=classes, **asdict(own.network), **backbone)

    def create_data(self, recipe: Recipe, images: RunImages, preprocessing: Preprocessing) -> SegmentationData:
        from fastvit.tasks.segmentation.data import SegmentationData

        own = recipe.sections["segmentation"]
        return SegmentationData(images, preprocessing, recipe.batch_size, own, **recipe.loading)

    def create_module(self, recipe: Recipe, model: Any, configure: Configure) -> SegmentationTask:
        from fastvit.tasks.segmentation.module import SegmentationTask

        return SegmentationTask(model, recipe.sections["segmentation"], configure)

    def decode(
        self, outputs: Mapping[str, np.ndarray], shown: PreprocessedImage, network: Description, limits: Limits
    ) -> SegmentationPrediction:
        from fastvit.tasks.segmentation.prediction import SegmentationPrediction, decoded

        return SegmentationPrediction(shown.name, decoded(outputs, shown.fitted, shown.size), network.classes)

    def draw(self, image: Image.Image, prediction: Any) -> Image.Image:
        from fastvit.tasks.segmentation.drawing import draw

        return draw(image, prediction)

    def validation_images(self, data: EvaluationData, network: Description) -> Any:
        from fastvit.tasks.segmentation.folders import open_masks

        return open_masks(data.source, "test", network.classes)

    def evaluate(self, predictor: Predictor, images: Any, request: EvaluationRequest) -> Measurement:
        from fastvit.tasks.segmentation.evaluation import measure

        return measure(predictor, images, request)

    def ground_truth(self, images: Any, index: int, network: Description) -> SegmentationPrediction:
        import numpy as np

        from fastvit.tasks.segmentation.folders import VOID
        from fastvit.tasks.segmentation.prediction import SegmentationPrediction

        known = network.classes or tuple(str(label) for label in range(network.config.num_classes))
        mask = images.mask(index)
        shown = np.where(mask == VOID, len(known), mask).astype(np.uint8)
        return SegmentationPrediction(images.name(index), shown, (*known, "ignored"))

    def prepare_export(self, model: TaskModel) -> None:
        model.options = replace(model.options, slide_window=None)  # an artifact runs on the complete image

    def synthetic_pictures(self, count: int) -> Pictures:
        from fastvit.export.pictures import scenes

        return scenes(count)


SPEC = SegmentationSpec()
