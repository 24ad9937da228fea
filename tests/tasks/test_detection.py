"""Detectors: what they compute, learn and give, against other ways to the same."""

from __future__ import annotations

import copy
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F
from torchvision.ops import box_iou

import fastvit
from fastvit.data.scenes import write_scenes
from fastvit.model.preprocessing import Preprocessing
from fastvit.tasks.colours import class_colours
from fastvit.tasks.detection.agreement import agreement
from fastvit.tasks.detection.data import DetectionData
from fastvit.tasks.detection.decoding import Objects, paste_masks, to_objects
from fastvit.tasks.detection.drawing import draw
from fastvit.tasks.detection.model import Detections, Detector
from fastvit.tasks.detection.module import DetectionTask, in_image
from fastvit.tasks.detection.options import DetectionOptions, DetectorConfig
from fastvit.tasks.detection.prediction import DetectionPrediction, predict
from tests.helpers import tiny
from tests.tasks.contracts import CLASSES, DETECTORS, DenseContract, Make, images, lively, make_detector, model

__all__ = ["images", "model"]  # fixtures of the contract

# Faster R-CNN is Mask R-CNN without masks.
KINDS = [pytest.param(kind, marks=pytest.mark.slow if kind == "faster_rcnn" else ()) for kind in DETECTORS]


@pytest.fixture(scope="module", params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def make() -> Make:
    return make_detector


class TestDetector(DenseContract):
    tolerance = 1e-9


def target(boxes: list[list[float]], labels: list[int], size: tuple[int, int] = (64, 64)) -> Detections:
    """Boxes as a target, with masks that fill them."""
    masks = torch.zeros(len(boxes), *size, dtype=torch.uint8)
    for mask, (left, top, right, bottom) in zip(masks, boxes, strict=True):
        mask[int(top) : int(-(-bottom // 1)), int(left) : int(-(-right // 1))] = 1
    return {
        "boxes": torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        "labels": torch.tensor(labels, dtype=torch.int64),
        "masks": masks,
    }


def noise(*sizes: tuple[int, int]) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(3, *size, generator=generator) for size in sizes]


def gradients(detector: Detector, targets: list[Detections]) -> dict[str, Tensor]:
    """Of all parameters, by name, for images of noise."""
    detector.train().zero_grad()
    losses = detector(noise(*[(64, 64)] * len(targets)), targets)
    assert all(loss.isfinite() for loss in losses.values())
    torch.stack(list(losses.values())).sum().backward()
    return {name: p.grad for name, p in detector.named_parameters() if p.grad is not None}


BOXES = [[4.0, 4.0, 30.0, 40.0], [20.5, 10.25, 60.0, 33.75]]


@pytest.mark.parametrize("label", [0, 4])
def test_an_rcnn_learns_a_label_in_the_column_after_the_background(label: int) -> None:
    """Only the class that is there pulls: its boxes and masks are the only ones that have a gradient."""
    detector = make_detector("mask_rcnn")
    with torch.no_grad():  # no class is believed in, so that the gradient of each is that of its targets alone
        detector.network.roi_heads.box_predictor.cls_score.bias[1:] = -30
    found = gradients(detector, [target(BOXES, [label, label])] * 2)
    heads = "network.roi_heads."
    scores = found[f"{heads}box_predictor.cls_score.bias"]
    assert scores.shape == (6,)
    assert scores[label + 1] < -1e-3
    others = [column for column in range(1, 6) if column != label + 1]
    assert scores[others].abs().max() < 1e-6
    for name, shape in (("box_predictor.bbox_pred", (6, 4)), ("mask_predictor.mask_fcn_logits", (6, 1))):
        pulled = found[f"{heads}{name}.bias"].reshape(shape).abs().sum(1) > 0
        assert pulled.nonzero().flatten().tolist() == [label + 1], name


@pytest.mark.parametrize("label", [0, 4])
def test_a_retinanet_learns_a_label_in_its_own_column(label: int) -> None:
    detector = make_detector("retinanet")
    found = gradients(detector, [target(BOXES, [label, label])] * 2)
    scores = found["network.head.classification_head.cls_logits.bias"].reshape(9, 5).sum(0)
    assert scores[label] < 0
    assert (scores[[column for column in range(5) if column != label]] > 0).all()


@pytest.mark.parametrize("label", [0, 4])
def test_labels_count_from_zero(kind: str, label: int) -> None:
    """A network that says one class everywhere, which is the column after the background where there is one."""
    detector = lively(make_detector(kind)).eval()
    with torch.no_grad():
        if kind == "retinanet":
            logits = detector.network.head.classification_head.cls_logits
            logits.weight.zero_()
            logits.bias.copy_(torch.where(torch.arange(45) % 5 == label, 2.0, -9.0))
        else:
            logits = detector.network.roi_heads.box_predictor.cls_score
            logits.weight.zero_()
            logits.bias.copy_(torch.where(torch.arange(6) == label + 1, 9.0, 0.0))
        (found,) = detector(noise((64, 64)))
    assert len(found["labels"])
    assert set(found["labels"].tolist()) == {label}


def test_masks_are_those_of_the_objects_classes() -> None:
    """Of the mask head's channels, the one of the class that the box head chose."""
    detector = lively(make_detector("mask_rcnn")).eval()
    with torch.no_grad():
        channels = detector.network.roi_heads.mask_predictor.mask_fcn_logits
        channels.weight.zero_()
        channels.bias.copy_(torch.arange(6.0))
        (found,) = detector(noise((64, 96)))
    assert found["masks"].shape == (len(found["labels"]), 28, 28)
    assert len(found["labels"].unique()) > 1
    expected = (found["labels"] + 1.0).sigmoid()[:, None, None].expand_as(found["masks"])
    torch.testing.assert_close(found["masks"], expected)


def test_anchors() -> None:
    """They double from map to map, around the corners of its cells, three ratios each, of RetinaNet three sizes too."""
    for kind, per_cell, first in (("faster_rcnn", 3, 4), ("retinanet", 9, 8)):
        detector = make_detector(kind, anchor=10).eval()
        network = detector.network
        generator = network.anchor_generator if kind == "retinanet" else network.rpn.anchor_generator
        seen = []
        generator.register_forward_hook(lambda _, __, anchors, seen=seen: seen.append(anchors))
        with torch.no_grad():
            detector(noise((64, 96)))
        ((anchors,),) = seen
        cells = [-(-64 // s) * -(-96 // s) for s in detector.pyramid_strides]
        assert detector.pyramid_strides == tuple(first * 2**level for level in range(5))
        for level, one in enumerate(anchors.split([count * per_cell for count in cells])):
            sides = one[:, 2:] - one[:, :2]
            side = 10 * 2**level
            octave = [side * 2 ** (step / 3) for step in range(per_cell // 3)]
            expected = sorted(size for size in octave for _ in range(3))
            found = sorted(sides.prod(1).sqrt()[:per_cell].tolist())
            assert found == pytest.approx(expected, rel=0.08), "rounded to whole pixels"
            ratios = (sides[:, 1] / sides[:, 0])[:per_cell]
            assert sorted(ratios.tolist()) == pytest.approx(sorted([0.5, 1.0, 2.0] * (per_cell // 3)), rel=0.25)
            assert (one[0, :2] + one[0, 2:]).abs().max() <= 1, "the first cell's are around its corner"


@pytest.mark.parametrize("sizes", [((64, 64), (64, 64)), ((33, 71), (50, 40))])
def test_images_without_objects_are_learnt_from(kind: str, sizes: tuple[tuple[int, int], ...]) -> None:
    """All of the batch without any, or one of two; also where images have different, odd sizes."""
    pictures = noise(*sizes)
    empty = [target([], [], size) for size in sizes]
    some = target([[3.0, 4.0, 25.0, 30.0]], [2], sizes[0])
    for targets in (empty, [some, empty[1]]):
        detector = make_detector(kind).train()
        before = {name: p.clone() for name, p in detector.named_parameters()}
        optimizer = torch.optim.SGD(detector.parameters(), 1e-3)
        losses = DetectionTask(detector).losses(pictures, targets)
        parts = [value for name, value in losses.items() if name != "loss"]
        torch.testing.assert_close(losses["loss"], sum(parts))
        losses["loss"].backward()
        optimizer.step()
        assert all(p.isfinite().all() for p in detector.parameters())
        assert any(not torch.equal(before[name], p) for name, p in detector.named_parameters())
    assert losses["loss"] > 0


def test_objects_of_a_pixel_are_learnt_from(kind: str) -> None:
    found = gradients(make_detector(kind), [target([[10.0, 10.0, 11.0, 11.0], [63.0, 0.0, 64.0, 1.0]], [0, 3])])
    assert all(gradient.isfinite().all() for gradient in found.values())


def test_more_objects_than_samples(kind: str) -> None:
    places = [[float(x), float(y), x + 7.0, y + 9.0] for x in range(0, 56, 4) for y in range(0, 54, 6)]
    found = gradients(make_detector(kind, samples=8), [target(places, [i % 5 for i in range(len(places))])])
    assert all(gradient.isfinite().all() for gradient in found.values())


# Learning.


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight scenes to learn by heart: those to validate on are those to train on."""
    folder = tmp_path_factory.mktemp("learnt") / "scenes"
    write_scenes(folder, 8, 96, seed=0)
    annotations = folder / "annotations"
    shutil.copy(annotations / "instances_train.json", annotations / "instances_val.json")
    shutil.rmtree(folder / "images" / "val")
    shutil.copytree(folder / "images" / "train", folder / "images" / "val")
    return folder


def learner(scenes: Path, kind: str) -> tuple[DetectionTask, list[tuple[list[Tensor], list[Detections]]], DetectionData]:
    """A small detector, the scenes as one training batch, ready for it, and their data."""
    network = DetectorConfig(kind, width=48, anchor=12, samples=64, proposals=100)
    preprocessing = Preprocessing((96, 96), resize="fit", interpolation="bilinear")
    options = DetectionOptions(network, size=(96, 96), hflip=0.0)
    data = DetectionData(scenes, 8, options, workers=0, preprocessing=preprocessing)
    torch.manual_seed(0)
    config = tiny(num_classes=len(data.classes)).config.replace(layer_scale_init=0.1)
    detector = Detector(config, classes=data.classes, preprocessing=preprocessing, options=network)
    task = DetectionTask(detector).train()
    return task, [(task._normalised(batch), targets) for batch, targets in data.train_dataloader()], data


def fit(task: DetectionTask, batches: list[tuple[list[Tensor], list[Detections]]], steps: int) -> list[dict[str, float]]:
    """Losses by name of every step."""
    task.train()
    optimizer = torch.optim.AdamW(task.parameters(), 2e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=steps, pct_start=0.1)
    history = []
    for step in range(steps):
        losses = task.losses(*batches[step % len(batches)])
        optimizer.zero_grad()
        losses["loss"].backward()
        torch.nn.utils.clip_grad_norm_(task.parameters(), 5.0)
        optimizer.step()
        schedule.step()
        history.append({name: float(value) for name, value in losses.items()})
    return history


def test_losses_fall(scenes: Path, kind: str) -> None:
    task, batches, _ = learner(scenes, kind)
    history = fit(task, batches, 15)
    first, last = (sum(step["loss"] for step in part) / 3 for part in (history[:3], history[-3:]))
    assert last < 0.75 * first


@pytest.mark.slow
@pytest.mark.parametrize("kind", DETECTORS, indirect=True)
def test_eight_scenes_are_learnt_by_heart(scenes: Path, kind: str) -> None:
    task, batches, data = learner(scenes, kind)
    history = fit(task, batches, 300)
    for name in history[0]:
        assert history[-1][name] < history[0][name], name
    task.eval()
    with torch.no_grad():
        for pictures, targets in data.val_dataloader():
            task.validate(task._normalised(pictures), targets)
    found = {name: float(value) for name, value in task.metrics.compute().items()}
    assert found["val/box_ap50"] > 0.9, found
    if kind == "mask_rcnn":
        assert found["val/mask_ap50"] > 0.85, found
