"""Specification of the task of 3D hand mesh regression. Needs no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, ClassVar

from fastvit.errors import UserError
from fastvit.reports.metric_format import LOSS, Metric
from fastvit.tasks.hand_mesh.mesh_file import SUFFIXES
from fastvit.tasks.hand_mesh.options import HandMeshOptions, HandRegressorConfig
from fastvit.tasks.spec import TaskSpec, with_own_size

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image

    from fastvit.data.module import RunImages
    from fastvit.evaluation.measurement import EvaluationRequest, Measurement
    from fastvit.export.options import ExportOptions
    from fastvit.export.pictures import Pictures
    from fastvit.model.preprocessing import Preprocessing
    from fastvit.model.task_model import TaskModel
    from fastvit.predict.prediction import Limits, PreprocessedImage
    from fastvit.predict.predictor import Predictor
    from fastvit.runs.evaluation_data import EvaluationData
    from fastvit.tasks.hand_mesh.data import HandMeshData
    from fastvit.tasks.hand_mesh.model import HandRegressor
    from fastvit.tasks.hand_mesh.module import HandMeshTask
    from fastvit.tasks.hand_mesh.prediction import HandPrediction
    from fastvit.training.options import Recipe
    from fastvit.training.task import Configure
    from fastvit.weights.description import Description


class HandMeshSpec(TaskSpec):
    """Task of 3D hand mesh regression: the mesh of the hand in an image."""

    name = "hand_mesh"
    headline = "pa_mpjpe"
    metrics: ClassVar[Mapping[str, Metric]] = {
        "pa_mpjpe": Metric("PA-MPJPE", "mm", lower_is_better=True),
        "pa_mpvpe": Metric("PA-MPVPE", "mm", lower_is_better=True),
        "mpjpe": Metric("MPJPE", "mm", lower_is_better=True),
        "mpvpe": Metric("MPVPE", "mm", lower_is_better=True),
        "f5": Metric("F@5 mm"),
        "f15": Metric("F@15 mm"),
        "auc": Metric("AUC"),
        "loss": LOSS,
    }
    curves = ("pa_mpjpe", "mpjpe")
    sections: ClassVar[Mapping[str, type]] = {"hand_mesh": HandMeshOptions}
    unused_fields: ClassVar[Mapping[str, str]] = with_own_size("hand_mesh.size")
    options = HandRegressorConfig
    mesh_suffixes = (".obj", *(suffix for suffix in SUFFIXES if suffix != ".obj"))
    heads = ("hand", "hand_tokens")
    outputs = ("mesh",)

    def model_class(self) -> type[TaskModel]:
        from fastvit.tasks.hand_mesh.model import HandRegressor

        return HandRegressor

    def create_untrained(self, head: str, variant: str) -> HandRegressor:
        from fastvit.tasks.hand_mesh.create import create_hand_regressor

        return create_hand_regressor(variant, head="tokens" if head == "hand_tokens" else "mlp")

    def image_size(self, recipe: Recipe) -> tuple[int, int]:
        size = recipe.sections["hand_mesh"].size
        return size, size

    def open_images(self, recipe: Recipe) -> RunImages:
        from fastvit.tasks.hand_mesh.data import open_for_run

        return open_for_run(recipe.data, recipe.sections["hand_mesh"].hand)

    def create_model(self, recipe: Recipe, classes: tuple[str, ...], backbone: Mapping[str, Any]) -> HandRegressor:
        from fastvit.tasks.hand_mesh.create import create_hand_regressor
        from fastvit.tasks.hand_mesh.freihand import hand_of

        own: HandMeshOptions = recipe.sections["hand_mesh"]
        hand, name, pretrained = hand_of(recipe.data, own.hand), recipe.model.name, recipe.model.pretrained
        return create_hand_regressor(name, pretrained, hand=hand, **asdict(own.network), **backbone)

    def create_data(self, recipe: Recipe, images: RunImages, preprocessing: Preprocessing) -> HandMeshData:
        from fastvit.tasks.hand_mesh.data import HandMeshData

        return HandMeshData(images, preprocessing, recipe.batch_size, recipe.sections["hand_mesh"], **recipe.loading)

    def create_module(self, recipe: Recipe, model: Any, configure: Configure) -> HandMeshTask:
        from fastvit.tasks.hand_mesh.module import HandMeshTask

        return HandMeshTask(model, recipe.sections["hand_mesh"].losses, configure)

    def decode(
        self, outputs: Mapping[str, np.ndarray], shown: PreprocessedImage, network: Description, limits: Limits
    ) -> HandPrediction:
        from fastvit.tasks.hand_mesh.prediction import predict

        canvas, faces = network.preprocessing.size, network.options.hand.faces
        return predict(outputs, shown.name, canvas, shown.fitted, shown.size, faces)

    def draw(self, image: Image.Image, prediction: Any) -> Image.Image:
        from fastvit.tasks.hand_mesh.drawing import draw

        return draw(image, prediction)

    def validation_images(self, data: EvaluationData, network: Description) -> Any:
        from fastvit.tasks.hand_mesh.freihand import open_freihand

        return open_freihand(data.source, "test", vertices=network.options.hand.vertices)

    def evaluate(self, predictor: Predictor, images: Any, request: EvaluationRequest) -> Measurement:
        from fastvit.tasks.hand_mesh.evaluation import measure

        return measure(predictor, images, request)

    def ground_truth(self, images: Any, index: int, network: Description) -> HandPrediction | None:
        from fastvit.tasks.hand_mesh.camera import project
        from fastvit.tasks.hand_mesh.prediction import HandPrediction
        from fastvit.tasks.hand_mesh.skeleton import ROOT

        if not images.has_ground_truth:
            return None
        there = images.ground_truth(index)
        joints, vertices = (points - there.joints[ROOT] for points in (there.joints, there.vertices))
        joints_2d, vertices_2d = (project(points, there.intrinsics) for points in (there.joints, there.vertices))
        faces = network.options.hand.faces
        return HandPrediction(images.name(index), there.side, joints, vertices, joints_2d, vertices_2d, faces)

    def check_export(self, options: ExportOptions, output: str) -> None:
        if output == "mesh" and options.size == "dynamic":
            raise UserError("a hand mesh regressor is exported for one size of images: set --size to a number")

    def synthetic_pictures(self, count: int) -> Pictures:
        from fastvit.export.pictures import FEW, Pictures
        from fastvit.tasks.hand_mesh.synthetic import sample_hands

        images = sample_hands(min(count, FEW))
        return Pictures(f"{len(images)} synthetic hands", images)


SPEC = HandMeshSpec()
