"""Detectors: what they compute, learn and give, against other ways to the same."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

import fastvit
from fastvit.model.preprocessing import Preprocessing
from fastvit.synthetic.scenes import write_scenes
from fastvit.tasks.colors import class_colors
from fastvit.tasks.detection.agreement import SHOWN, agreement, in_use
from fastvit.tasks.detection.coco import open_coco
from fastvit.tasks.detection.data import DetectionData, open_for_run
from fastvit.tasks.detection.decoding import Objects, paste_masks, to_objects
from fastvit.tasks.detection.drawing import draw
from fastvit.tasks.detection.model import Detections, Detector
from fastvit.tasks.detection.module import DetectionTask, in_image
from fastvit.tasks.detection.options import DetectionOptions, DetectorConfig
from fastvit.tasks.detection.prediction import DetectionPrediction
from fastvit.tasks.table import find_task
from fastvit.weights.description import Description
from tests.helpers import tiny
from tests.tasks.contracts import (
    CLASSES,
    DETECTORS,
    Make,
    TaskModelContract,
    images,
    lively,
    make_detector,
    model,
    same_scenes,
)

__all__ = ["images", "model"]  # fixtures of the contract

# Of pycocotools' own arrays.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation")
# Faster R-CNN is Mask R-CNN without masks.
KINDS = [pytest.param(kind, marks=pytest.mark.slow if kind == "faster_rcnn" else ()) for kind in DETECTORS]


@pytest.fixture(scope="module", params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def make() -> Make:
    return make_detector


class TestDetector(TaskModelContract):
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
        detector = make_detector(kind, anchor_size=10).eval()
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
    found = gradients(make_detector(kind, roi_batch_size=8), [target(places, [i % 5 for i in range(len(places))])])
    assert all(gradient.isfinite().all() for gradient in found.values())


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return same_scenes(tmp_path_factory.mktemp("learnt") / "scenes")


Batch = tuple[list[Tensor], list[Detections]]


def learner(scenes: Path, kind: str) -> tuple[DetectionTask, list[Batch], DetectionData]:
    """A small detector, the scenes as one training batch, ready for it, and their data."""
    network = DetectorConfig(kind, fpn_channels=48, anchor_size=12, roi_batch_size=64, post_nms_top_n=100)
    preprocessing = Preprocessing((96, 96), resize="resize_shorter", interpolation="bilinear")
    options = DetectionOptions(network, size=(96, 96), hflip=0.0)
    data = DetectionData(open_for_run(scenes, network.masks), preprocessing, 8, options, num_workers=0)
    torch.manual_seed(0)
    config = tiny(num_classes=len(data.classes)).config.replace(layer_scale_init=0.1)
    detector = Detector(config, classes=data.classes, preprocessing=preprocessing, options=network)
    task = DetectionTask(detector).train()
    return task, [(task._normalized(batch), targets) for batch, targets in data.train_dataloader()], data


def fit(task: DetectionTask, batches: list[Batch], steps: int) -> list[dict[str, float]]:
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
        history.append({name: float(value.detach()) for name, value in losses.items()})
    return history


def test_losses_fall(scenes: Path, kind: str) -> None:
    task, ((pictures, targets),), _ = learner(scenes, kind)
    history = fit(task, [(pictures[:2], targets[:2])], 12)
    first, last = (sum(step["loss"] for step in part) / 3 for part in (history[:3], history[-3:]))
    assert last < 0.6 * first, history


@pytest.mark.slow
@pytest.mark.parametrize("kind", DETECTORS, indirect=True)
def test_eight_scenes_are_learnt_by_heart(scenes: Path, kind: str) -> None:
    task, batches, data = learner(scenes, kind)
    history = fit(task, batches, 150)
    for name in history[0]:
        assert history[-1][name] < history[0][name], name
    with torch.no_grad():
        for _ in range(30):  # so that norms have the statistics of the last weights
            task.losses(*batches[0])
        task.eval()
        for pictures, targets in data.val_dataloader():
            task.validate(task._normalized(pictures), targets)
    found = {name: float(value) for name, value in task.metrics.compute().items()}
    assert found["val/box_ap50"] > 0.95, found
    if kind == "mask_rcnn":
        assert found["val/mask_ap50"] > 0.9, found


# From raw outputs to predictions.


def sampled(mask: np.ndarray, box: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """(height, width) values of a (S, S) grid laid over a box: torch's own sampling, with zeros around."""
    height, width = size
    left, top, right, bottom = map(float, box)
    x = (torch.arange(width, dtype=torch.float64) + 0.5 - left) / (right - left) * 2 - 1
    y = (torch.arange(height, dtype=torch.float64) + 0.5 - top) / (bottom - top) * 2 - 1
    places = torch.stack([x[None].expand(height, width), y[:, None].expand(height, width)], -1)
    grid = torch.from_numpy(mask.astype(np.float64))[None, None]
    return F.grid_sample(grid, places[None], align_corners=False, padding_mode="zeros")[0, 0].numpy()


@pytest.mark.parametrize("points", [1, 7, 28])
def test_masks_are_pasted_as_torch_samples_them(points: int) -> None:
    """Boxes of all sizes: a pixel, less than a pixel, whole and fractional, beyond the image on every side."""
    generator = np.random.default_rng(points)
    size = (41, 53)
    boxes = [
        [3, 4, 4, 5],
        [10.3, 10.2, 10.9, 10.8],
        [5, 6, 33, 34],
        [7.25, 3.7, 40.01, 39.99],
        [0, 0, 53, 41],
        [-4.5, 10, 20, 30],
        [30, -7.3, 60.2, 20],
        [20, 20, 60, 50],
        [-10, -10, 70, 70],
        [52.2, 40.1, 53, 41],
        [-20, 5, -3, 20],
        [60, 5, 70, 50],
        *(np.sort(generator.uniform(0, 40, (20, 2, 2)), 1).reshape(20, 4)),
    ]
    boxes = np.array(boxes, np.float64)
    masks = generator.uniform(0, 1, (len(boxes), points, points))
    pasted = paste_masks(masks, boxes, size)
    assert pasted.shape == (len(boxes), *size)
    expected = np.stack([sampled(mask, box, size) >= 0.5 for mask, box in zip(masks, boxes, strict=True)])
    assert np.array_equal(pasted, expected)
    assert pasted.any((1, 2)).sum() > 5


def test_a_box_of_nothing_has_no_pixels() -> None:
    masks = np.ones((3, 28, 28), np.float32)
    boxes = np.array([[5, 5, 5, 9], [5, 5, 9, 5], [2, 3, 4, 6]], np.float32)
    pasted = paste_masks(masks, boxes, (10, 10))
    assert pasted.sum((1, 2)).tolist() == [0, 0, 6]
    assert pasted[2, 3:6, 2:4].all()
    assert paste_masks(masks[:0], boxes[:0], (10, 12)).shape == (0, 10, 12)


def test_objects_come_back_to_the_image() -> None:
    """Shown at 50 by 80, stored with 100 by 240 pixels: twice the height, three times the width."""
    found = {
        "boxes": np.array([[10, 5, 20.5, 15.25], [-3, -2, 8, 60], [70, 40, 95, 70]], np.float32),
        "labels": np.array([2, 0, 1], np.float32),
        "scores": np.array([0.9, 0.5, 0.2], np.float32),
    }
    objects = to_objects(found, (50, 80), (100, 240))
    assert objects.boxes.tolist() == [[30, 10, 61.5, 30.5], [0, 0, 24, 100], [210, 80, 240, 100]]
    assert (objects.labels.dtype, objects.labels.tolist()) == (np.int64, [2, 0, 1])
    assert objects.masks is None
    assert to_objects(found, (50, 80), (100, 240), score=0.5).labels.tolist() == [2, 0]
    assert objects.above(0.3).scores.tolist() == pytest.approx([0.9, 0.5])
    nothing = to_objects({name: value[:0] for name, value in found.items()}, (50, 80), (100, 240))
    assert nothing.boxes.shape == (0, 4)


def test_a_box_beyond_the_image_is_clipped_and_its_mask_cut_off() -> None:
    """As an artifact finds it, whose canvas is larger than the image: the rest of the mask stays in its place."""
    generator = np.random.default_rng(0)
    found = {
        "boxes": np.array([[20, 10, 60, 50]], np.float32),
        "labels": np.array([0]),
        "scores": np.array([1.0], np.float32),
        "masks": generator.uniform(0, 1, (1, 28, 28)).astype(np.float32),
    }
    objects = to_objects(found, (30, 40), (60, 80))
    assert objects.boxes.tolist() == [[40, 20, 80, 60]]
    whole = sampled(found["masks"][0], np.array([40, 20, 120, 100]), (60, 80)) >= 0.5
    assert objects.masks is not None
    assert np.array_equal(objects.masks[0], whole)


@pytest.mark.parametrize("size", [(40, 64), (64, 30), (17, 64), (33, 31), (64, 64)])
def test_an_image_on_a_canvas_is_found_in_as_alone(kind: str, size: tuple[int, int]) -> None:
    """Whatever is around it."""
    detector = lively(make_detector(kind)).eval()
    (image,) = noise(size)
    with torch.no_grad():
        alone = detector.outputs(image[None])
        assert len(alone[0]) >= 10
        for canvas in (torch.full((1, 3, 64, 64), torch.nan), torch.randn(1, 3, 70, 100)):
            canvas[0, :, : size[0], : size[1]] = image
            for one, other in zip(alone, detector.outputs(canvas, torch.tensor([size])), strict=True):
                assert torch.equal(one, other)


def test_a_narrow_image_first_changes_nothing_for_the_next() -> None:
    """torchvision infers the strides of the maps from the first image that it is shown, wrongly from a narrow one."""
    first = lively(make_detector("faster_rcnn")).eval()
    second = copy.deepcopy(first)
    narrow, image = noise((33, 64), (64, 64))
    with torch.no_grad():
        first.outputs(narrow[None])
        outputs = first.outputs(image[None]), second.outputs(image[None])
    for one, other in zip(*outputs, strict=True):
        assert torch.equal(one, other)


def test_nothing_is_found_outside_of_an_image(kind: str) -> None:
    """Up to 31 rows are padded: boxes there, clipped to the image, would be objects without any area."""
    detector = lively(make_detector(kind, max_detections=1000, nms_thresh=1.0)).eval()
    for size in ((33, 64), (64, 35)):
        (image,) = noise(size)
        with torch.no_grad():
            boxes = detector.outputs(image[None])[0]
        assert len(boxes) > 100
        assert (boxes[:, 2:] > boxes[:, :2]).all()


def test_what_two_find_in_use() -> None:
    """Pairs of a class and place count once, shown by either; the others where they are shown."""
    ours = Objects(
        np.array([[0, 0, 10, 10], [20, 0, 30, 10], [40, 0, 50, 10], [60, 0, 70, 10]], np.float32),
        np.array([0, 0, 0, 0]),
        np.array([0.9, 0.31, 0.8, 0.2], np.float32),
        None,
    )
    theirs = Objects(
        np.array([[0, 0, 10, 9], [20, 0, 30, 10], [40, 0, 50, 10], [80, 0, 90, 2]], np.float32),
        np.array([0, 0, 1, 0]),
        np.array([0.7, 0.29, 0.8, 0.35], np.float32),
        None,
    )
    found = in_use([ours], [theirs])
    assert (found.both, found.lost, found.invented, found.images) == (2, 1, 2, 1)
    assert "2 by the artifact only" in str(found)


def test_in_use_pairs_are_left_out_on_either_side() -> None:
    """The second object of one detector is the first of the other."""
    boxes = [[0.0, 0, 10, 10], [50.0, 50, 60, 60]]
    found = in_use([boxed(boxes, [np.float32(0.2), np.float32(0.9)])], [boxed(boxes[1:], [np.float32(0.9)])])
    assert (found.both, found.lost, found.invented) == (1, 0, 0)


def boxed(boxes: list[list[float]], scores: list[np.float32], masks: np.ndarray | None = None) -> Objects:
    """Objects of one class."""
    return Objects(np.array(boxes, np.float32), np.zeros(len(boxes), np.int64), np.array(scores, np.float32), masks)


# The score from which on objects are shown, and the number before it.
SHOWN_JUST, HIDDEN_JUST = np.float32(SHOWN), np.nextafter(np.float32(SHOWN), np.float32(0))


def test_what_is_shown_in_use_begins_at_its_score() -> None:
    """Found by both, by the reference alone, and by the other alone."""
    near, far = [0.0, 0, 10, 10], [50.0, 50, 60, 60]
    for score, counted in ((SHOWN_JUST, 1), (HIDDEN_JUST, 0)):
        pair = boxed([near], [score]), boxed([near], [HIDDEN_JUST])
        for ours, theirs in (pair, pair[::-1]):
            found = in_use([ours], [theirs])
            assert (found.both, found.lost, found.invented) == (counted, 0, 0)
        found = in_use([boxed([near], [score])], [boxed([far], [HIDDEN_JUST])])
        assert (found.both, found.lost, found.invented) == (0, counted, 0)
        found = in_use([boxed([near], [HIDDEN_JUST])], [boxed([far], [score])])
        assert (found.both, found.lost, found.invented) == (0, 0, counted)


def test_half_an_overlap_is_no_pair() -> None:
    whole, half, more = ([[0.0, 0, 10, height]] for height in (10, 5, 5.5))
    for other, pairs in ((half, 0), (more, 1)):
        found = in_use([boxed(whole, [np.float32(1)])], [boxed(other, [np.float32(1)])])
        assert (found.both, found.lost, found.invented) == (pairs, 1 - pairs, 1 - pairs)
        sides = [
            {"boxes": np.array(boxes), "labels": np.zeros(1, int), "scores": np.ones(1)} for boxes in (whole, other)
        ]
        agreed = agreement(sides[:1], sides[1:], DetectorConfig())
        assert agreed is not None
        assert (agreed.objects, agreed.unpaired) == (pairs, 2 - 2 * pairs)


def test_objects_at_the_least_score_are_kept() -> None:
    """Of an artifact's, and of those that have been found already, with their masks."""
    masks = np.stack([np.full((4, 4), share, np.float32) for share in (1.0, 0.0, 1.0)])
    found = {
        "boxes": np.array([[0, 0, 4, 4]] * 3, np.float32),
        "labels": np.array([2, 1, 0]),
        "scores": np.array([0.75, 0.5, np.nextafter(np.float32(0.5), np.float32(0))], np.float32),
        "masks": masks,
    }
    for kept in (to_objects(found, (8, 8), (8, 8), 0.5), to_objects(found, (8, 8), (8, 8)).above(0.5)):
        assert (kept.labels.tolist(), kept.scores.tolist(), len(kept.boxes)) == ([2, 1], [0.75, 0.5], 2)
        assert kept.masks is not None
        assert kept.masks.any((1, 2)).tolist() == [True, False]


def test_a_pixel_of_just_the_threshold_belongs_to_the_mask() -> None:
    """A grid point on every pixel's center: nothing is rounded."""
    before = np.nextafter(np.float32(0.5), np.float32(0))
    mask = np.array([[0.5, before], [before, 0.5]], np.float32)
    (pasted,) = paste_masks(mask[None], np.array([[3, 1, 5, 3]]), (4, 6))
    assert np.argwhere(pasted).tolist() == [[1, 3], [2, 4]]
    (pasted,) = paste_masks(mask[None], np.array([[3, 1, 5, 3]]), (4, 6), threshold=float(before))
    assert np.argwhere(pasted).tolist() == [[1, 3], [1, 4], [2, 3], [2, 4]]


def test_validation_and_prediction_say_the_same() -> None:
    """What the metrics are fed in training, and what a Predictor outputs."""
    detector = lively(make_detector("mask_rcnn", preprocessing=Preprocessing((64, 64), resize="resize_shorter"))).eval()
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 56, 3), np.uint8))
    (prediction,) = fastvit.Predictor(detector, prepare=copy.deepcopy)(picture)
    assert len(prediction.objects.scores) >= 10
    shown = fastvit.data.transforms.eval_pixels(detector.preprocessing)(picture)
    assert shown.shape == (3, 46, 64)
    task = DetectionTask(detector)
    with torch.no_grad():
        (found,) = detector([task._normalized(shown)])
    ours = in_image(found, (46, 64), {"size": torch.tensor([40, 56])})
    for name in ("boxes", "labels", "scores", "masks"):
        assert np.array_equal(ours[name].numpy(), getattr(prediction.objects, name)), name


def test_a_record_is_cocos(model: Detector) -> None:
    from pycocotools import mask as coco

    masks = np.zeros((2, 10, 12), bool)
    masks[0, 2:5, 3:9] = masks[1, 7, 7] = True
    boxes = np.array([[3, 2, 9, 5], [7, 7, 8, 8]], np.float32)
    objects = Objects(boxes, np.array([1, 0]), np.array([0.75, 0.5], np.float32), masks)
    record = DetectionPrediction("a.png", objects, ("hat", "key")).record()
    first, second = record["predictions"]
    assert (first["category_id"], first["category"], first["bbox"], first["score"]) == (2, "key", [3, 2, 6, 3], 0.75)
    assert (second["category_id"], second["category"], second["bbox"]) == (1, "hat", [7, 7, 1, 1])
    for mask, one in zip(masks, (first, second), strict=True):
        assert np.array_equal(coco.decode(one["segmentation"]), mask)
    without = DetectionPrediction("a.png", Objects(boxes, objects.labels, objects.scores, None), None)
    assert [set(one) for one in without.record()["predictions"]] == [{"category_id", "category", "bbox", "score"}] * 2
    assert without.summary() == "1 1, 1 0"
    outputs = {"boxes": boxes, "labels": objects.labels, "scores": objects.scores}
    assert DetectionPrediction("a.png", to_objects(outputs, (10, 12), (10, 12), 0.6), None).summary() == "1 1"


# Agreement.


def detections(generator: np.random.Generator, count: int = 12, masks: bool = True) -> dict[str, np.ndarray]:
    """Objects that hardly overlap, the surest first."""
    corners = np.array([[30 * (i % 4), 30 * (i // 4)] for i in range(count)], np.float32)
    sides = generator.uniform(10, 25, (count, 2)).astype(np.float32)
    scores = np.sort(generator.uniform(0.2, 1, count).astype(np.float32))[::-1]
    found = {"boxes": np.concatenate([corners, corners + sides], 1), "labels": generator.integers(0, 3, count)}
    more = {"masks": generator.uniform(0, 1, (count, 28, 28)).astype(np.float32)} if masks else {}
    return {**found, "scores": scores.copy(), **more}


def chosen(found: dict[str, np.ndarray], places: object) -> dict[str, np.ndarray]:
    return {name: values[places] for name, values in found.items()}


# Objects below 0.05, and beyond a hundred, are left out.
EDGES = DetectorConfig()


@pytest.mark.parametrize("masks", [True, False])
def test_shuffled_objects_agree(masks: bool) -> None:
    generator = np.random.default_rng(0)
    found = [detections(generator, masks=masks) for _ in range(3)]
    shuffled = [chosen(one, generator.permutation(12)) for one in found]
    agreed = agreement(found, shuffled, EDGES)
    assert agreed is not None
    assert (agreed.objects, agreed.unpaired) == (36, 0)
    assert agreed.boxes.max_abs == agreed.scores.max_abs == 0
    assert (agreed.masks is not None) == masks
    assert not masks or agreed.masks.max_abs == 0

    moved = [{**one, "boxes": one["boxes"] + 0.25, "scores": one["scores"] - 0.125} for one in shuffled]
    agreed = agreement(found, moved, EDGES)
    assert agreed is not None
    assert (agreed.objects, agreed.unpaired) == (36, 0)
    assert (agreed.boxes.max_abs, agreed.scores.max_abs) == (pytest.approx(0.25, rel=1e-4), pytest.approx(0.125))


def test_what_only_one_finds_is_counted() -> None:
    found = detections(np.random.default_rng(1))
    without = chosen(found, [i for i in range(12) if i not in (0, 5)])
    for pair in ((found, without), (without, found)):
        agreed = agreement(pair[:1], pair[1:], EDGES)
        assert agreed is not None
        assert (agreed.objects, agreed.unpaired) == (10, 2)
        assert agreed.boxes.max_abs == 0
    other_class = {**found, "labels": np.where(np.arange(12) == 3, 7, found["labels"])}
    agreed = agreement([found], [other_class], EDGES)
    assert agreed is not None
    assert (agreed.objects, agreed.unpaired) == (11, 2)
    far = {**found, "boxes": np.where(np.arange(12)[:, None] == 3, found["boxes"] + 500, found["boxes"])}
    agreed = agreement([found], [far], EDGES)
    assert agreed is not None
    assert (agreed.objects, agreed.unpaired) == (11, 2)


def test_one_alone_at_the_edge_of_the_scores_is_rounding() -> None:
    found = detections(np.random.default_rng(2))
    found["scores"][-2:] = 0.0508, 0.0501
    agreed = agreement([found], [chosen(found, slice(-1))], EDGES)
    assert agreed is not None
    assert (agreed.objects, agreed.unpaired) == (11, 0)
    agreed = agreement([chosen(found, slice(-2))], [found], EDGES)
    assert agreed is not None
    assert (agreed.objects, agreed.unpaired) == (10, 0)
    found["scores"][-2] = 0.06
    agreed = agreement([chosen(found, slice(-2))], [found], EDGES)
    assert agreed is not None
    assert agreed.unpaired == 1


def test_the_edge_of_the_scores_has_an_end() -> None:
    """A thousandth above the least score is rounding; the next number is not. The least score counts, though."""
    found = detections(np.random.default_rng(2))
    found["scores"] = found["scores"].astype(np.float64)
    for options in (DetectorConfig(score_thresh=0.25), DetectorConfig(score_thresh=0.25, max_detections=12)):
        found["scores"][-1] = 0.25 + 1e-3
        for expected in (0, 1):
            for one, other in ((found, chosen(found, slice(-1))), (chosen(found, slice(-1)), found)):
                agreed = agreement([one], [other], options)
                assert agreed is not None
                assert (agreed.objects, agreed.unpaired) == (11, expected)
            found["scores"][-1] = np.nextafter(found["scores"][-1], 1)


def test_the_weakest_of_an_image_is_not_at_the_edge_for_that() -> None:
    found = detections(np.random.default_rng(2))
    for pair in ((found, chosen(found, slice(-1))), (chosen(found, slice(-1)), found)):
        agreed = agreement(pair[:1], pair[1:], EDGES)
        assert agreed is not None
        assert (agreed.objects, agreed.unpaired) == (11, 1)


def test_the_last_of_a_full_image_is_at_the_edge() -> None:
    """Two that keep eleven objects, and rank the last two, of almost the same score, differently."""
    found = detections(np.random.default_rng(2))
    found["scores"][-2:] = 0.2004, 0.2001
    sides = [chosen(found, slice(-1))], [chosen(found, [*range(10), 11])]
    agreed = agreement(*sides, DetectorConfig(max_detections=11))
    assert agreed is not None
    assert (agreed.objects, agreed.unpaired) == (10, 0)
    agreed = agreement(*sides, EDGES)
    assert agreed is not None
    assert agreed.unpaired == 2


def test_where_nothing_is_found() -> None:
    found = detections(np.random.default_rng(3))
    nothing = chosen(found, slice(0))
    assert agreement([nothing], [nothing], EDGES) is None
    for pair in ((found, nothing), (nothing, found)):
        agreed = agreement(pair[:1], pair[1:], EDGES)
        assert agreed is not None
        assert agreed.objects == 0
        assert agreed.unpaired == 12, "also the weakest of them, which is far from the edge"
    agreed = agreement([found, nothing], [found, nothing], EDGES)
    assert agreed is not None
    assert (agreed.objects, agreed.unpaired) == (12, 0)


def test_an_object_is_paired_once() -> None:
    """Two that lie on each other, where the other detector finds one."""
    box = np.array([[10, 10, 50, 50]] * 2, np.float32)
    found = {"boxes": box, "labels": np.zeros(2, int), "scores": np.array([0.9, 0.8], np.float32)}
    one = chosen(found, slice(1))
    for pair in ((found, one), (one, found)):
        agreed = agreement(pair[:1], pair[1:], EDGES)
        assert agreed is not None
        assert (agreed.objects, agreed.unpaired, agreed.scores.max_abs) == (1, 1, 0)


def test_objects_on_each_other_are_paired_by_their_scores() -> None:
    box = np.array([[10, 10, 50, 50]] * 3, np.float32)
    found = {"boxes": box, "labels": np.zeros(3, int), "scores": np.array([0.9, 0.6, 0.3], np.float32)}
    agreed = agreement([found], [chosen(found, [2, 0, 1])], EDGES)
    assert agreed is not None
    assert (agreed.objects, agreed.unpaired, agreed.scores.max_abs) == (3, 0, 0)


# Pictures.


def test_a_mask_colors_its_pixels_alone() -> None:
    size = (400, 600)
    picture = Image.fromarray(np.random.default_rng(0).integers(60, 200, (*size, 3), np.uint8))
    before = np.asarray(picture)
    masks = np.zeros((1, *size), bool)
    masks[0, 80:140, 100:180] = True
    objects = Objects(np.array([[90, 70, 200, 150]], np.float32), np.array([1]), np.array([0.5], np.float32), masks)
    drawn = draw(picture, DetectionPrediction("a.png", objects, CLASSES))
    assert drawn.size == picture.size
    after = np.asarray(drawn)
    changed = (after != before).any(-1)
    assert changed[105:138, 110:178].mean() > 0.99, "below the label, inside the mask"
    color = np.array(class_colors(len(CLASSES))[1])
    inside = after[120, 140].astype(float) - (0.55 * before[120, 140] + 0.45 * color)
    assert np.abs(inside).max() < 2
    assert (after[70, 90:200] == color).all(), "the box's upper edge"
    outside = np.ones_like(changed)
    outside[40:152, 88:202] = False
    assert not changed[outside].any()
    between = np.zeros_like(changed)
    between[142:148, 95:195] = True
    assert not changed[between].any(), "inside the box, outside the mask"


def test_without_objects_the_picture_stays() -> None:
    for mode in ("RGB", "L"):
        picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (500, 600, 3), np.uint8)).convert(mode)
        none = Objects(np.zeros((0, 4), np.float32), np.zeros(0, int), np.zeros(0), np.zeros((0, 500, 600), bool))
        drawn = draw(picture, DetectionPrediction("a.png", none, CLASSES))
        assert np.array_equal(np.asarray(drawn), np.asarray(picture.convert("RGB")))


def test_annotations_are_drawn_without_scores(tmp_path: Path) -> None:
    write_scenes(tmp_path, 1, 64, seed=0)
    pictures = open_coco(str(tmp_path), "test", None, masks=False)
    network = Description.of(make_detector("faster_rcnn", tiny(len(pictures.classes)).config, classes=pictures.classes))
    ground_truth = find_task("detection").ground_truth(pictures, 0, network)
    assert len(ground_truth.objects.scores) > 0
    lower = replace(ground_truth.objects, scores=ground_truth.objects.scores / 2)

    def drawn(**changes: object) -> np.ndarray:
        return np.asarray(draw(pictures.image(0), replace(ground_truth, **changes)))

    assert np.array_equal(drawn(), drawn(objects=lower))
    assert not np.array_equal(drawn(annotated=False), drawn(annotated=False, objects=lower))
    assert not np.array_equal(drawn(), drawn(annotated=False))


def test_objects_without_class_names_masks_or_size_are_drawn() -> None:
    """Boxes at the image's edges, and one of no width at all, as rounding to the image may leave it."""
    picture = Image.new("RGB", (60, 40))
    boxes = np.array([[0, 0, 60, 40], [59.5, 39.5, 60, 40], [60, 10, 60, 20]], np.float32)
    objects = Objects(boxes, np.array([0, 8, 2]), np.array([1, 0.5, 0.1], np.float32), None)
    assert np.asarray(draw(picture, DetectionPrediction("a.png", objects, None))).any()
