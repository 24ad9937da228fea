"""Images with what is true of them beside what a model says, of tasks whose answers are drawn."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from fastvit.data.subset import evenly_spaced
from fastvit.errors import DamagedImageError
from fastvit.predict.predictor import Answer, Predictor
from fastvit.reports.figures import new_figure
from fastvit.reports.page import Section
from fastvit.tasks.detection.coco import CocoImages
from fastvit.tasks.detection.decoding import Objects
from fastvit.tasks.detection.prediction import DetectionPrediction
from fastvit.tasks.hand_mesh.camera import project
from fastvit.tasks.hand_mesh.freihand import HandImages
from fastvit.tasks.hand_mesh.prediction import HandPrediction
from fastvit.tasks.hand_mesh.skeleton import ROOT
from fastvit.tasks.segmentation.folders import IGNORED, MaskedImages
from fastvit.tasks.segmentation.prediction import SegmentationPrediction

Annotated = CocoImages | MaskedImages | HandImages
_COUNT = 6
# Objects below it are not drawn.
_DRAWN = 0.3


@dataclass(frozen=True)
class Example:
    """An image with what is true of it and what the model says, each drawn into it."""

    name: str
    truth: Image.Image
    answer: Image.Image


def examples(predictor: Predictor, images: Annotated) -> list[Example]:
    """Some of the images that can be decoded, evenly spread, with truth and answer drawn into them."""
    draw = importlib.import_module(f"fastvit.tasks.{predictor.task}.drawing").draw
    places = evenly_spaced(len(images), min(len(images), _COUNT))
    made = []
    for place in places:
        try:
            picture = images.image(place)
            truth = _truth(images, place, predictor)
        except DamagedImageError:
            continue  # whoever allowed it has been told
        (answer,) = predictor([picture], score=_DRAWN)
        made.append(Example(images.name(place), draw(picture, truth), draw(picture, answer)))
    return made


def _truth(images: Annotated, place: int, predictor: Predictor) -> Answer:
    name, classes = images.name(place), predictor.classes
    if isinstance(images, CocoImages):
        there = images.targets(place)
        masks = there.masks().astype(bool) if predictor.options.masks else None
        objects = Objects(there.boxes, there.labels, np.ones(len(there), np.float32), masks)
        return DetectionPrediction(name, objects, classes)
    if isinstance(images, HandImages):
        return _true_hand(images, place, predictor)
    known = classes or tuple(str(label) for label in range(predictor.num_classes))
    mask = images.mask(place)
    shown = np.where(mask == IGNORED, len(known), mask).astype(np.uint8)
    return SegmentationPrediction(name, shown, (*known, "ignored"))


def _true_hand(images: HandImages, place: int, predictor: Predictor) -> HandPrediction:
    there = images.truth(place)
    joints, vertices = (points - there.joints[ROOT] for points in (there.joints, there.vertices))
    joint_places, vertex_places = (project(points, there.intrinsics) for points in (there.joints, there.vertices))
    faces = predictor.options.hand.faces
    return HandPrediction(images.name(place), there.side, joints, vertices, joint_places, vertex_places, faces)


def examples_section(made: Sequence[Example], task: str) -> Section:
    """Two examples a row."""
    least = f", objects from {_DRAWN:.0%} on" if task == "detection" else ""
    text = f"Held-out images: left what is true, right what the model says{least}."
    rows = -(-len(made) // 2)
    figure = new_figure(12, 3.2 * rows)
    places = figure.subplots(rows, 4, squeeze=False)
    for place in places.flat:
        place.axis("off")
    for index, example in enumerate(made):
        row, column = divmod(index, 2)
        for offset, picture in enumerate((example.truth, example.answer)):
            places[row, 2 * column + offset].imshow(picture)
        places[row, 2 * column].set_title(Path(example.name).name, fontsize=8, loc="left")
    return Section("Examples", text, figure, pixels=True)
