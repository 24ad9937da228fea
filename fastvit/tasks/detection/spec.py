"""The detection task, as the rest of the package uses it. Needs no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, ClassVar, cast

from fastvit.errors import UserError
from fastvit.reports.metric_format import LOSS, Metric
from fastvit.tasks.detection.options import DetectionOptions, DetectorConfig, DetectorKind
from fastvit.tasks.spec import TaskSpec, with_own_size

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image

    from fastvit.data.module import RunImages
    from fastvit.evaluation.measurement import EvaluationRequest, Measurement
    from fastvit.export.options import ExportOptions
    from fastvit.export.pictures import Pictures
    from fastvit.export.proof import Proof
    from fastvit.model.preprocessing import Preprocessing
    from fastvit.model.task_model import TaskModel
    from fastvit.predict.prediction import Limits, PreprocessedImage
    from fastvit.predict.predictor import Predictor
    from fastvit.runs.evaluation_data import EvaluationData
    from fastvit.runtime.artifact import Artifact
    from fastvit.tasks.detection.data import DetectionData
    from fastvit.tasks.detection.model import Detector
    from fastvit.tasks.detection.module import DetectionTask
    from fastvit.tasks.detection.prediction import DetectionPrediction
    from fastvit.tasks.detection.proof import DetectionProof
    from fastvit.training.options import Recipe
    from fastvit.training.task import Configure
    from fastvit.weights.description import Description

_AP = {"ap": "AP", "ap50": "AP50", "ap75": "AP75", "ap_small": "AP small", "ap_medium": "AP medium"}
_AP |= {"ap_large": "AP large"}


class DetectionSpec(TaskSpec):
    """Object detection and instance segmentation: boxes, classes and optionally masks of objects."""

    name = "detection"
    headline = "box_ap"
    metrics: ClassVar[Mapping[str, Metric]] = {
        **{f"{kind}_{ap}": Metric(f"{kind} {label}") for kind in ("box", "mask") for ap, label in _AP.items()},
        "loss": LOSS,
    }
    curves = ("box_ap", "box_ap50", "mask_ap")
    sections: ClassVar[Mapping[str, type]] = {"detection": DetectionOptions}
    unused_fields: ClassVar[Mapping[str, str]] = with_own_size("detection.size")
    options = DetectorConfig
    half_precision = False
    proved_on_pictures = True
    scored = True
    heads = ("mask_rcnn", "faster_rcnn", "retinanet")
    outputs = ("objects",)

    def model_class(self) -> type[TaskModel]:
        from fastvit.tasks.detection.model import Detector

        return Detector

    def create_untrained(self, head: str, variant: str) -> Detector:
        from fastvit.tasks.detection.create import create_detector

        # A score threshold of 0 makes random weights output the largest number of detections.
        return create_detector(variant, kind=cast(DetectorKind, head), score_thresh=0.0)

    def image_size(self, recipe: Recipe) -> tuple[int, int]:
        size: tuple[int, int] = recipe.sections["detection"].size
        return size

    def open_images(self, recipe: Recipe) -> RunImages:
        from fastvit.tasks.detection.data import open_for_run

        return open_for_run(recipe.data, recipe.sections["detection"].network.masks)

    def create_model(self, recipe: Recipe, classes: tuple[str, ...], backbone: Mapping[str, Any]) -> Detector:
        from fastvit.tasks.detection.create import create_detector

        own: DetectionOptions = recipe.sections["detection"]
        name, pretrained = recipe.model.name, recipe.model.pretrained
        return create_detector(name, pretrained, classes=classes, **asdict(own.network), **backbone)

    def create_data(self, recipe: Recipe, images: RunImages, preprocessing: Preprocessing) -> DetectionData:
        from fastvit.tasks.detection.data import DetectionData

        return DetectionData(images, preprocessing, recipe.batch_size, recipe.sections["detection"], **recipe.loading)

    def create_module(self, recipe: Recipe, model: Any, configure: Configure) -> DetectionTask:
        from fastvit.tasks.detection.module import DetectionTask

        return DetectionTask(model, configure)

    def decode(
        self, outputs: Mapping[str, np.ndarray], shown: PreprocessedImage, network: Description, limits: Limits
    ) -> DetectionPrediction:
        from fastvit.tasks.detection.decoding import to_objects
        from fastvit.tasks.detection.prediction import DetectionPrediction

        objects = to_objects(outputs, shown.fitted, shown.size, limits.score)
        return DetectionPrediction(shown.name, objects, network.classes)

    def draw(self, image: Image.Image, prediction: Any) -> Image.Image:
        from fastvit.tasks.detection.drawing import draw

        return draw(image, prediction)

    def validation_images(self, data: EvaluationData, network: Description) -> Any:
        from fastvit.tasks.detection.coco import open_coco

        return open_coco(data.source, "test", network.classes, network.options.masks)

    def evaluate(self, predictor: Predictor, images: Any, request: EvaluationRequest) -> Measurement:
        from fastvit.tasks.detection.evaluation import measure

        return measure(predictor, images, request)

    def ground_truth(self, images: Any, index: int, network: Description) -> DetectionPrediction:
        import numpy as np

        from fastvit.tasks.detection.decoding import Objects
        from fastvit.tasks.detection.prediction import DetectionPrediction

        there = images.targets(index)
        masks = there.masks().astype(bool) if network.options.masks else None
        objects = Objects(there.boxes, there.labels, np.ones(len(there), np.float32), masks)
        return DetectionPrediction(images.name(index), objects, network.classes, annotated=True)

    def check_export(self, options: ExportOptions, output: str) -> None:
        if output == "objects" and (options.batch != 1 or options.size == "dynamic" or options.precision != "fp32"):
            raise UserError(
                "a complete detector is exported in fp32 only, for one image of a fixed size; --output features "
                "supports other batch sizes, sizes and precisions"
            )

    def export_shape(
        self, preprocessing: Preprocessing, output: str, size: tuple[int, int] | None
    ) -> tuple[tuple[int, int], Preprocessing]:
        if size is None and output == "objects" and preprocessing.resize == "resize_shorter":
            # A square canvas has room for images of any aspect ratio; padding around an image costs nothing.
            return (-(-max(preprocessing.size) // 32) * 32,) * 2, preprocessing
        return super().export_shape(preprocessing, output, size)

    def synthetic_pictures(self, count: int) -> Pictures:
        from fastvit.export.pictures import scenes

        return scenes(count)

    def prove(
        self, model: TaskModel, artifact: Artifact, pictures: Sequence[Image.Image], labels: Sequence[int] | None
    ) -> Proof:
        if "boxes" not in artifact.signature.outputs:
            return super().prove(model, artifact, pictures, labels)
        from fastvit.tasks.detection.proof import prove_artifact

        return prove_artifact(model, artifact, pictures)

    def prove_fusion(self, model: TaskModel, fused: TaskModel, pictures: Sequence[Image.Image]) -> DetectionProof:
        from fastvit.tasks.detection.proof import prove_forms

        return prove_forms(model, fused, pictures)


SPEC = DetectionSpec()
