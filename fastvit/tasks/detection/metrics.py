"""COCO's average precision, and detections in the format of COCO's results."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
import torchmetrics
from pycocotools import mask as rle_tools
from torch import Tensor

from fastvit.tasks.detection.run_lengths import encode_masks

# The image id of a padding sample, which no metric counts.
UNCOUNTED = -1
_AREAS = ("", "small", "medium", "large")
_KINDS = {"box": "bbox", "mask": "segm"}

Values = Tensor | np.ndarray


@dataclass(frozen=True, eq=False)
class _Record:
    """Detections or ground truth of an image: arrays with a row per object, boxes as (left, top, width, height)."""

    boxes: np.ndarray
    labels: np.ndarray
    runs: list[dict[str, Any]] | None
    scores: np.ndarray | None = None
    areas: np.ndarray | None = None
    crowd: np.ndarray | None = None


@dataclass(frozen=True, eq=False)
class _ImageRecord:
    """An image: its id, height and width, detections and ground truth."""

    image: int
    size: tuple[int, int]
    found: _Record
    ground_truth: _Record

    def __deepcopy__(self, memo: dict[int, Any]) -> _ImageRecord:
        return self  # it is never changed, and torchmetrics copies its states often


class CocoMetrics(torchmetrics.Metric):
    """COCO's average precision (AP) of boxes and optionally masks, in [0, 1]; NaN where there are no objects.

    The values are those of pycocotools: crowds are ignored, object sizes are the annotated areas, and the best 100
    detections per class and image count. Detections are stored on the CPU, masks as RLE, and gathered from all
    processes by `compute`.

    Args:
        num_classes: number of classes.
        masks: also measure masks.
        backend: "faster" for the compiled evaluation of faster-coco-eval, "pycocotools" for the slow original.
        options: other arguments of torchmetrics' Metric.
    """

    higher_is_better = True
    is_differentiable = False
    full_state_update = False
    records: list[_ImageRecord]

    def __init__(
        self,
        num_classes: int,
        masks: bool = False,
        backend: Literal["faster", "pycocotools"] = "faster",
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.num_classes, self.masks, self.backend = num_classes, masks, backend
        self._by_class = torch.full((num_classes,), torch.nan)
        self.add_state("records", default=[], dist_reduce_fx=None)

    def update(self, outputs: Sequence[Mapping[str, Tensor]], targets: Sequence[Mapping[str, Tensor]]) -> None:
        """Add a batch of images.

        Args:
            outputs: detections of each image: "boxes" (N, 4), left, top, right and bottom in pixels of the original
                image, "labels" (N,), "scores" (N,), and, if masks are measured, "masks" (N, H, W), bool or uint8.
            targets: ground truth of each image: "boxes", "labels" and "masks" in the same form, "iscrowd" (N,), "area"
                (N,), "size" (2,), height and width of the original image, and "image_id"; -1 does not count.
        """
        for output, target in zip(outputs, targets, strict=True):
            if (image := int(target["image_id"])) == UNCOUNTED:
                continue
            height, width = (int(side) for side in target["size"])
            found = self._record(output, scores=_array(output["scores"], np.float64))
            areas, crowd = _array(target["area"], np.float64), _array(target["iscrowd"], np.int64)
            ground_truth = self._record(target, areas=areas, crowd=crowd)
            self.records.append(_ImageRecord(image, (height, width), found, ground_truth))

    def _record(self, objects: Mapping[str, Tensor], **details: np.ndarray) -> _Record:
        runs = encode_masks(_array(objects["masks"], np.uint8)) if self.masks else None
        return _Record(_xywh(objects["boxes"]), _array(objects["labels"], np.int64), runs, **details)

    def compute(self) -> dict[str, Tensor]:
        """Return box_ap, box_ap50, box_ap75, box_ap_small, box_ap_medium and box_ap_large, and the same for masks."""
        # Sorted by id, so that equal scores have the same order for any number of processes.
        records = sorted(self.records, key=lambda record: record.image)
        values: dict[str, Tensor] = {}
        for kind in ("box", "mask") if self.masks else ("box",):
            precision = _precision(records, self.num_classes, _KINDS[kind], self.backend)
            if kind == "box":
                by_class = [_mean(precision[:, :, label, 0]) for label in range(self.num_classes)]
                self._by_class = torch.tensor(by_class, device=self.device)
            found = {f"{kind}_ap": precision[:, :, :, 0]}
            found |= {f"{kind}_ap{50 + 5 * i}": precision[i, :, :, 0] for i in (0, 5)}
            found |= {f"{kind}_ap_{name}": precision[:, :, :, i] for i, name in enumerate(_AREAS) if name}
            values |= {name: torch.tensor(_mean(part), device=self.device) for name, part in found.items()}
        return values

    def per_class(self) -> Tensor:
        """Return the box AP of each class as (classes,) float32, NaN for a class without objects."""
        self.compute()  # cached by torchmetrics
        return self._by_class

    def _apply(self, fn: Callable[..., Any], exclude_state: Sequence[str] = ()) -> torch.nn.Module:
        # The records are not tensors, and stay on the CPU.
        moved: torch.nn.Module = super()._apply(fn, exclude_state=(*exclude_state, "records"))
        return moved

    def _sync_dist(self, dist_sync_fn: Callable[..., Any] | None = None, process_group: Any = None) -> None:
        group = process_group or self.process_group
        parts: list[Any] = [None] * torch.distributed.get_world_size(group)
        torch.distributed.all_gather_object(parts, self.records, group=group)
        self.records = [record for part in parts for record in part]


def coco_results(outputs: Mapping[str, Values], image_id: int, categories: Sequence[int]) -> list[dict[str, Any]]:
    """Return the detections of an image as COCO's result records, with plain values for JSON.

    Args:
        outputs: "boxes" (N, 4), left, top, right and bottom in pixels of the original image, "labels" (N,), "scores"
            (N,), and optionally "masks" (N, H, W), bool or uint8.
        image_id: id of the image.
        categories: category id of each class.

    Returns:
        A record per detection: "image_id", "category_id", "bbox" (left, top, width, height), "score", and, with masks,
        "segmentation", COCO's compressed RLE with "size" (height, width) and "counts".
    """
    columns = (_xywh(outputs["boxes"]), _array(outputs["labels"], np.int64), _array(outputs["scores"], np.float64))
    records = [
        {"image_id": image_id, "category_id": categories[label], "bbox": box, "score": score}
        for box, label, score in zip(*(column.tolist() for column in columns), strict=True)
    ]
    if (masks := outputs.get("masks")) is not None:
        for record, run in zip(records, encode_masks(_array(masks, np.uint8)), strict=True):
            record["segmentation"] = run
    return records


def _array(values: Values, dtype: type) -> np.ndarray:
    if isinstance(values, Tensor):
        values = values.detach().cpu()
        values = (values.double() if values.is_floating_point() else values).numpy()  # NumPy has no bfloat16
    return np.asarray(values, dtype)


def _xywh(boxes: Values) -> np.ndarray:
    corners = _array(boxes, np.float64).reshape(-1, 4)
    return np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], 1)


def _mean(precision: np.ndarray) -> float:
    measured = precision[precision > -1]
    return float(measured.mean()) if measured.size else float("nan")


def _precision(records: Sequence[_ImageRecord], num_classes: int, kind: str, backend: str) -> np.ndarray:
    """Return precision (10 IoUs from 0.5, 101 recalls, classes, 4 areas) at 100 detections; -1 where undefined."""
    if backend == "faster":
        from faster_coco_eval import COCO
        from faster_coco_eval import COCOeval_faster as Evaluation
    else:
        from pycocotools.coco import COCO
        from pycocotools.cocoeval import COCOeval as Evaluation
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints its progress
        ground_truth, found = (
            _coco(COCO(), records, num_classes, [getattr(record, name) for record in records], kind)
            for name in ("ground_truth", "found")
        )
        evaluation = Evaluation(ground_truth, found, kind)
        evaluation.evaluate()
        evaluation.accumulate()
    precision: np.ndarray = np.asarray(evaluation.eval["precision"])[..., -1]
    return precision


def _coco(coco: Any, images: Sequence[_ImageRecord], num_classes: int, contents: Iterable[_Record], kind: str) -> Any:
    """Fill a COCO object with annotations; images get new unique ids."""
    annotations: list[dict[str, Any]] = []
    for number, content in enumerate(contents):
        areas = content.areas
        rles = content.runs if kind == "segm" else None
        if areas is None:
            areas = rle_tools.area(rles) if rles else content.boxes[:, 2:].prod(1)
        crowd = np.zeros(len(areas), np.int64) if content.crowd is None else content.crowd
        scores = np.zeros(len(areas)) if content.scores is None else content.scores
        rows = zip(*(c.tolist() for c in (content.boxes, content.labels, areas, crowd, scores)), strict=True)
        for index, (box, label, area, iscrowd, score) in enumerate(rows):
            annotation = {
                "id": len(annotations) + 1,  # from 1, because 0 means no match in pycocotools
                "image_id": number,
                "category_id": label,
                "bbox": box,
                "area": area,
                "iscrowd": iscrowd,
                "score": score,
            }
            if rles:
                annotation["segmentation"] = rles[index]
            annotations.append(annotation)
    coco.dataset = {
        "images": [{"id": i, "height": image.size[0], "width": image.size[1]} for i, image in enumerate(images)],
        "categories": [{"id": label, "name": str(label)} for label in range(num_classes)],
        "annotations": annotations,
    }
    coco.createIndex()
    return coco
