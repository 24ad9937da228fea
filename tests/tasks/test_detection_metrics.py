"""COCO's average precision against pycocotools', which defines it, and against numbers computed by hand."""

from __future__ import annotations

import contextlib
import io
import json
import multiprocessing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchmetrics
from pycocotools import mask as rle_tools
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from fastvit.tasks.detection.metrics import UNCOUNTED, CocoMetrics, coco_results

# Of pycocotools' own arrays.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation")

CLASSES = 4
SIDE = 220
NAMES = ("ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large")
Dicts = list[dict[str, torch.Tensor]]


def ellipses(boxes: np.ndarray, height: int, width: int) -> np.ndarray:
    y, x = np.mgrid[:height, :width] + 0.5
    center, radius = (boxes[:, :2] + boxes[:, 2:]) / 2, (boxes[:, 2:] - boxes[:, :2]) / 2
    across, down = (
        (axis - c[:, None, None]) / r[:, None, None] for axis, c, r in zip((x, y), center.T, radius.T, strict=True)
    )
    return (across**2 + down**2 <= 1).astype(np.uint8)


def random_boxes(generator: np.random.Generator, count: int, height: int, width: int) -> np.ndarray:
    extents = np.exp(generator.uniform(np.log(6), np.log(min(height, width)), (count, 2)))
    extents[::3] = generator.uniform(110, min(height, width), (len(extents[::3]), 2))
    corners = generator.uniform(0, [width, height] - extents)
    return np.concatenate([corners, corners + extents], 1).astype(np.float32)


def scenes(seed: int, count: int = 16, ties: bool = False) -> tuple[Dicts, Dicts]:
    """Detections near objects of all sizes and far from them, of right and wrong classes; crowds; images with nothing
    in them, with nothing found, and with neither."""
    generator = np.random.default_rng(seed)
    outputs, targets = [], []
    for index in range(count):
        height, width = generator.integers(SIDE - 80, SIDE, 2).tolist()
        boxes = random_boxes(generator, int(generator.integers(0, 7)), height, width)
        labels = generator.integers(0, CLASSES, len(boxes))
        masks = ellipses(boxes, height, width)
        near = np.repeat(np.arange(len(boxes)), generator.integers(0, 4, len(boxes)))
        sides = np.tile(boxes[near, 2:] - boxes[near, :2], 2)
        moved = boxes[near] + sides * generator.normal(0, 0.05, (len(near), 4))
        far = random_boxes(generator, int(generator.integers(0, 4)), height, width)
        found = np.concatenate([moved, far]).clip(0, [width, height, width, height]).astype(np.float32)
        classes = np.concatenate([labels[near], generator.integers(0, CLASSES, len(far))])
        wrong = generator.random(len(classes)) < 0.15
        classes[wrong] = generator.integers(0, CLASSES, int(wrong.sum()))
        scores = generator.random(len(found), np.float32)
        output = {"boxes": found, "labels": classes, "scores": scores.round(1) if ties else scores}
        target = {
            "boxes": boxes,
            "labels": labels,
            "iscrowd": (generator.random(len(boxes)) < 0.2).astype(int),
            "area": masks.sum((1, 2)).astype(np.float32),
        }
        details = {"image_id": torch.tensor(1000 - index), "size": torch.tensor([height, width])}
        found_masks = ellipses(found, height, width)
        outputs.append({name: torch.from_numpy(part) for name, part in {**output, "masks": found_masks}.items()})
        targets.append({name: torch.from_numpy(part) for name, part in {**target, "masks": masks}.items()} | details)
    return outputs, targets


def xywh(box: torch.Tensor) -> list[float]:
    left, top, right, bottom = box.double().tolist()
    return [left, top, right - left, bottom - top]


def encoded(mask: torch.Tensor) -> dict[str, Any]:
    return rle_tools.encode(np.asfortranarray(mask.numpy(), np.uint8))


def official(outputs: Dicts, targets: Dicts, kind: str) -> np.ndarray:
    """COCO's six numbers by its own tools, given records as they are published."""
    ground_truth: dict[str, list[Any]] = {"images": [], "annotations": []}
    ground_truth["categories"] = [{"id": label + 1, "name": str(label)} for label in range(CLASSES)]
    results = []
    for output, target in zip(outputs, targets, strict=True):
        image, (height, width) = int(target["image_id"]), target["size"].tolist()
        ground_truth["images"].append({"id": image, "height": height, "width": width})
        for index, label in enumerate(target["labels"].tolist()):
            ground_truth["annotations"].append(
                {
                    "id": len(ground_truth["annotations"]) + 1,
                    "image_id": image,
                    "category_id": label + 1,
                    "bbox": xywh(target["boxes"][index]),
                    "area": float(target["area"][index]),
                    "iscrowd": int(target["iscrowd"][index]),
                    "segmentation": encoded(target["masks"][index]),
                }
            )
        for index, label in enumerate(output["labels"].tolist()):
            record = {"image_id": image, "category_id": label + 1, "score": float(output["scores"][index])}
            # A box beside a mask would make COCO's tools take its area for the mask's.
            shape = {"bbox": xywh(output["boxes"][index])} if kind == "bbox" else {}
            results.append({**record, **(shape or {"segmentation": encoded(output["masks"][index])})})
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = ground_truth
        coco.createIndex()
        evaluation = COCOeval(coco, coco.loadRes(results), kind)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return np.where(evaluation.stats[:6] < 0, np.nan, evaluation.stats[:6])


def values(metric: torchmetrics.Metric, kind: str = "box") -> np.ndarray:
    found = metric.compute()
    return np.array([found[f"{kind}_{name}"].item() for name in NAMES])


def updated(outputs: Dicts, targets: Dicts, batch: int = 4, **options: Any) -> CocoMetrics:
    metric = CocoMetrics(CLASSES, **options)
    for first in range(0, len(outputs), batch):
        metric.update(outputs[first : first + batch], targets[first : first + batch])
    return metric


@pytest.mark.parametrize(("backend", "seed"), [("faster", 0), ("faster", 1), ("faster", 2), ("pycocotools", 3)])
def test_the_numbers_are_pycocotools(backend: Any, seed: int, capfd: pytest.CaptureFixture[str]) -> None:
    outputs, targets = scenes(seed, ties=seed % 2 == 1)
    metric = updated(outputs, targets, masks=True, backend=backend)
    for kind, name in (("bbox", "box"), ("segm", "mask")):
        expected = official(outputs, targets, kind)
        np.testing.assert_allclose(values(metric, name), expected, rtol=0, atol=1e-6)
        assert not np.isnan(expected).any()
        assert (expected > 0).all()
    assert capfd.readouterr() == ("", "")


def single(boxes: list[list[float]], image: int = 1, **others: Any) -> dict[str, torch.Tensor]:
    """An image of 200 x 200 pixels with objects of class 0."""
    found = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)
    area = (found[:, 2:] - found[:, :2]).prod(1)
    zeros = torch.zeros(len(found), dtype=torch.int64)
    target = {"boxes": found, "labels": zeros, "iscrowd": zeros, "area": area}
    return {**target, "image_id": torch.tensor(image), "size": torch.tensor([200, 200]), **others}


def detected(boxes: list[list[float]], scores: list[float], labels: list[int] | None = None) -> dict[str, torch.Tensor]:
    found = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)
    return {"boxes": found, "labels": torch.tensor(labels or [0] * len(scores)), "scores": torch.tensor(scores)}


SMALL, LARGE, AWAY = [10.0, 10.0, 30.0, 30.0], [50.0, 50.0, 180.0, 180.0], [100.0, 0.0, 120.0, 20.0]


def test_by_hand() -> None:
    """Right, wrong, right: a precision of 1 up to half the objects (51 of 101 places), of 2/3 beyond."""
    metric = CocoMetrics(2)
    metric.update([detected([SMALL, AWAY, LARGE], [0.9, 0.8, 0.7])], [single([SMALL, LARGE])])
    expected = (51 + 50 * 2 / 3) / 101
    np.testing.assert_allclose(values(metric), [*[expected] * 3, 1, np.nan, 1], rtol=1e-6)
    np.testing.assert_allclose(metric.per_class(), [expected, np.nan], rtol=1e-6)
    # An overlap of 0.8 is enough at seven of the ten thresholds.
    metric.reset()
    metric.update([detected([[10, 10, 26, 30]], [0.5])], [single([SMALL])])
    np.testing.assert_allclose(values(metric)[:3], [0.7, 1, 1], rtol=1e-6)


def test_images_without_objects_count_by_what_is_found_there() -> None:
    metric = CocoMetrics(1)
    metric.update([detected([SMALL], [0.5])], [single([SMALL])])
    assert metric.compute()["box_ap"] == 1
    metric.update([detected([], [])], [single([], 2)])
    assert metric.compute()["box_ap"] == 1
    metric.update([detected([AWAY], [0.9])], [single([], 3)])
    assert metric.compute()["box_ap"] == pytest.approx(0.5)


def test_what_fills_up_a_batch_does_not_count() -> None:
    outputs, targets = scenes(0)
    metric = updated(outputs, targets)
    blank = single([], UNCOUNTED, size=torch.tensor([32, 32]))
    metric.update([detected([AWAY], [1.0])], [blank])
    np.testing.assert_array_equal(values(metric), values(updated(outputs, targets)))


def test_nothing_to_find_is_not_a_number() -> None:
    metric = CocoMetrics(3, masks=True)
    with pytest.warns(UserWarning, match="before the ``update`` method"):
        assert all(torch.isnan(value) for value in metric.compute().values())
    metric.reset()
    empty = torch.zeros(0, 200, 200, dtype=torch.uint8)
    found = {**detected([SMALL], [0.5]), "masks": torch.ones(1, 200, 200, dtype=torch.bool)}
    metric.update([found], [single([], masks=empty)])
    assert all(torch.isnan(value) for value in metric.compute().values())
    assert torch.isnan(metric.per_class()).all()
    # Where nothing was found that is there, it is nought.
    metric.update([{**detected([], []), "masks": empty}], [single([SMALL], 2, masks=empty.new_ones(1, 200, 200))])
    assert (metric.compute()["box_ap"], metric.compute()["mask_ap"]) == (0, 0)


def test_the_best_hundred_of_a_class_count() -> None:
    noise = [[100.0 + i / 10, 100.0, 110.0 + i / 10, 110.0] for i in range(100)]
    metric = CocoMetrics(1)
    metric.update([detected([*noise, SMALL], [*np.linspace(0.9, 0.8, 100).tolist(), 0.5])], [single([SMALL])])
    assert metric.compute()["box_ap"] == 0
    metric.reset()
    metric.update([detected([*noise[1:], SMALL], [*np.linspace(0.9, 0.8, 99).tolist(), 0.5])], [single([SMALL])])
    assert metric.compute()["box_ap"] == pytest.approx(0.01)


def test_neither_order_nor_batches_matter() -> None:
    outputs, targets = scenes(1, ties=True)
    expected = values(updated(outputs, targets))
    np.testing.assert_array_equal(values(updated(outputs[::-1], targets[::-1], 1)), expected)


def test_in_a_collection_as_tasks_have_them() -> None:
    outputs, targets = scenes(2)
    collection = torchmetrics.MetricCollection({"coco": CocoMetrics(CLASSES, masks=True)}).clone(prefix="val/")
    collection.update(outputs, targets)
    found = collection.to("cpu").double().compute()
    assert set(found) == {f"val/{kind}_{name}" for kind in ("box", "mask") for name in NAMES}
    assert all(value.shape == () for value in found.values())
    np.testing.assert_allclose(found["val/box_ap"], official(outputs, targets, "bbox")[0], atol=1e-6)
    collection.reset()
    collection.update(outputs[:5], targets[:5])
    np.testing.assert_array_equal(
        collection.compute()["val/mask_ap"], updated(outputs[:5], targets[:5], masks=True).compute()["mask_ap"]
    )


def _process(rank: int, folder: Path) -> None:
    torch.distributed.init_process_group("gloo", f"file://{folder / 'store'}", rank=rank, world_size=2)
    outputs, targets = scenes(3, ties=True)
    # The first has all but two of the images.
    own = slice(2, None) if rank == 0 else slice(2)
    metric = updated(outputs[own], targets[own], masks=True)
    numbers = torch.tensor(np.concatenate([values(metric), values(metric, "mask"), metric.per_class().numpy()]))
    torch.save((numbers, len(metric.records)), folder / f"{rank}.pt")
    torch.distributed.destroy_process_group()


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="starting anew takes seconds")
def test_processes_share_what_they_found(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=_process, args=(rank, tmp_path)) for rank in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    outputs, targets = scenes(3, ties=True)
    alone = updated(outputs, targets, masks=True)
    expected = np.concatenate([values(alone), values(alone, "mask"), alone.per_class()])
    for rank, own in enumerate((len(outputs) - 2, 2)):
        numbers, kept = torch.load(tmp_path / f"{rank}.pt")
        np.testing.assert_array_equal(numbers, expected)
        assert kept == own, "each goes on with its own"


def test_results_are_cocos(tmp_path: Path) -> None:
    outputs, targets = scenes(4, 6)
    categories = [5, 2, 9, 4]
    records = [
        record
        for output, target in zip(outputs, targets, strict=True)
        for record in coco_results(output, int(target["image_id"]), categories)
    ]
    (tmp_path / "results.json").write_text(json.dumps(records))
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        images = [{"id": int(t["image_id"]), "height": int(t["size"][0]), "width": int(t["size"][1])} for t in targets]
        coco.dataset = {"images": images, "categories": [{"id": i} for i in categories], "annotations": []}
        coco.createIndex()
        loaded = coco.loadRes(str(tmp_path / "results.json"))
    for output, target in zip(outputs, targets, strict=True):
        found = loaded.loadAnns(loaded.getAnnIds([int(target["image_id"])]))
        assert [one["category_id"] for one in found] == [categories[label] for label in output["labels"]]
        assert [one["score"] for one in found] == output["scores"].tolist()
        assert [one["bbox"] for one in found] == [xywh(box) for box in output["boxes"]]
        for one, mask in zip(found, output["masks"], strict=True):
            np.testing.assert_array_equal(loaded.annToMask(one), mask)
    arrays = {name: part.numpy() for name, part in outputs[0].items()}
    assert coco_results(arrays, 1000, categories) == coco_results(outputs[0], 1000, categories)
    del arrays["masks"]
    assert all("segmentation" not in record for record in coco_results(arrays, 1000, categories))


def test_half_precision_is_taken() -> None:
    output = detected([SMALL], [0.5])
    metric = CocoMetrics(1)
    metric.update(
        [{name: p.bfloat16() if p.is_floating_point() else p for name, p in output.items()}], [single([SMALL])]
    )
    assert metric.compute()["box_ap"] == 1
