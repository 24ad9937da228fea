"""A small task as another package would define it: how bright an image is, from 0 to 1.

The data are the images of DIR/train and DIR/val; the ground truth of each is the mean of its pixels.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchmetrics
from PIL import Image, ImageDraw
from torch import Tensor, nn
from torch.nn import functional as F

import fastvit
from fastvit.create import create_on_backbone
from fastvit.data.datasets import Samples
from fastvit.data.images import find_images, read_image
from fastvit.data.module import RunData, RunImages, evaluation_loader
from fastvit.data.transforms import eval_pixels
from fastvit.evaluation.measurement import Clock, Measurement, Parts
from fastvit.model.task_model import TaskModel
from fastvit.predict.prediction import Prediction
from fastvit.reports.metric_format import Metric
from fastvit.training.task import Task

CLASSES = ("brightness",)
ERROR = Metric("brightness error", lower_is_better=True)


@dataclass(frozen=True)
class BrightnessOptions:
    """Of training.

    Attributes:
        hflip: probability of a horizontal flip.
        scale: what the loss is multiplied with.
    """

    hflip: float = 0.5
    scale: float = 1.0


class BrightnessModel(TaskModel):
    """(B, C, H, W) images -> (B, 1) brightness."""

    task = "brightness"
    output_names = ("brightness",)
    default_preprocessing = fastvit.Preprocessing((64, 64), crop_pct=1.0)

    def __init__(self, config: fastvit.FastViTConfig, variant: str = "custom", **others: Any) -> None:
        super().__init__(config, variant, **others)
        self.backbone = fastvit.Backbone(config)
        self.head = nn.Linear(config.channels[-1], 1)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.backbone(images)[-1].mean((2, 3))).sigmoid()

    def outputs(self, images: Tensor) -> tuple[Tensor, ...]:
        return (self(images),)


class Pictures:
    classes = CLASSES

    def __init__(self, folder: Path) -> None:
        self.paths = find_images([folder])

    def __len__(self) -> int:
        return len(self.paths)

    def name(self, index: int) -> str:
        return str(self.paths[index])

    def image(self, index: int) -> Image.Image:
        return read_image(self.paths[index])

    def ground_truth(self, index: int) -> float:
        return float(np.asarray(self.image(index).convert("L")).mean() / 255)


class BrightnessSamples(Samples[tuple[Tensor, Tensor]]):
    def __init__(self, pictures: Pictures, preprocessing: fastvit.Preprocessing, hflip: float = 0.0) -> None:
        super().__init__(pictures)
        self.pixels, self.hflip = eval_pixels(preprocessing), hflip

    def item(self, index: int, varied: bool) -> tuple[Tensor, Tensor]:
        pixels = self.pixels(self.pictures.image(index))
        if varied and torch.rand(()) < self.hflip:
            pixels = pixels.flip(2)
        return pixels, torch.tensor([self.pictures.ground_truth(index)])


class BrightnessData(RunData):
    def __init__(self, images: RunImages, preprocessing: fastvit.Preprocessing, hflip: float, **others: Any) -> None:
        super().__init__(images, preprocessing, **others)
        self.hflip = hflip

    def train_dataloader(self) -> Any:
        return self.train_loader(BrightnessSamples(self.train_images, self.preprocessing, self.hflip))

    def val_dataloader(self) -> Any:
        return self.val_loader(BrightnessSamples(self.test_images, self.preprocessing), self.batch_size)


class BrightnessTask(Task):
    def __init__(self, model: BrightnessModel, scale: float, configure: Any) -> None:
        metrics = torchmetrics.MetricCollection({"mae": torchmetrics.MeanAbsoluteError()})
        super().__init__(model, metrics, configure)
        self.scale = scale

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return self.scale * F.mse_loss(outputs, targets)


@dataclass(frozen=True)
class BrightnessPrediction(Prediction):
    image: str
    value: float

    def record(self) -> dict[str, Any]:
        return {"image": self.image, "predictions": [{"brightness": self.value}]}

    def summary(self) -> str:
        return f"{self.value:.1%} bright"


class BrightnessSpec(fastvit.TaskSpec):
    name = "brightness"
    headline = "mae"
    metrics = {"mae": ERROR}
    sections = {"brightness": BrightnessOptions}
    batched = True
    heads = ("dimmer",)
    outputs = ("brightness",)

    def model_class(self) -> type[TaskModel]:
        return BrightnessModel

    def create_untrained(self, head: str, variant: str) -> BrightnessModel:
        return create_on_backbone(BrightnessModel, None, variant, False, 1, CLASSES)

    def open_images(self, recipe: Any) -> RunImages:
        return RunImages(Pictures(Path(recipe.data) / "train"), Pictures(Path(recipe.data) / "val"))

    def create_model(self, recipe: Any, classes: tuple[str, ...], backbone: Mapping[str, Any]) -> BrightnessModel:
        return create_on_backbone(BrightnessModel, None, recipe.model.name, False, 1, classes, **backbone)

    def create_data(self, recipe: Any, images: RunImages, preprocessing: fastvit.Preprocessing) -> BrightnessData:
        hflip = recipe.sections["brightness"].hflip
        return BrightnessData(images, preprocessing, hflip, batch_size=recipe.batch_size, **recipe.loading)

    def create_module(self, recipe: Any, model: Any, configure: Any) -> BrightnessTask:
        return BrightnessTask(model, recipe.sections["brightness"].scale, configure)

    def decode(self, outputs: Mapping[str, np.ndarray], shown: Any, network: Any, limits: Any) -> BrightnessPrediction:
        return BrightnessPrediction(shown.name, float(outputs["brightness"][0, 0]))

    def draw(self, image: Image.Image, prediction: Any) -> Image.Image:
        drawn = image.convert("RGB")
        ImageDraw.Draw(drawn).text((2, 2), prediction.summary(), fill="red")
        return drawn

    def validation_images(self, data: Any, network: Any) -> Pictures:
        return Pictures(Path(data.source) / "val")

    def evaluate(self, predictor: fastvit.Predictor, images: Pictures, request: Any) -> Measurement:
        clock, errors = Clock(), {}
        samples = BrightnessSamples(images, predictor.preprocessing)
        for index, (pixels, target) in enumerate(evaluation_loader(samples, 1, request.num_workers)):
            with clock:
                (found,) = predictor.outputs(pixels.numpy()).values()
            errors[Path(images.name(index)).name] = abs(float(found[0, 0]) - float(target))
        parts = Parts.of_metric("image", ERROR, errors)
        return Measurement(clock.count, {"mae": float(np.mean(list(errors.values())))}, parts, clock.rates())

    def ground_truth(self, images: Pictures, index: int, network: Any) -> BrightnessPrediction:
        return BrightnessPrediction(images.name(index), images.ground_truth(index))


fastvit.register_task(BrightnessSpec())
