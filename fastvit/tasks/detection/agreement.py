"""Whether two detectors find the same: their objects are paired before they are compared.

`agreement` is for two that are shown the same: they differ by rounding. `in_use` is for two that are shown the same
image files, each in its own way, such as in sizes of their own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torchvision.ops import box_iou

from fastvit.numerics import Differences, compare
from fastvit.tasks.detection.decoding import Objects
from fastvit.tasks.detection.options import DetectorConfig

# Two that are the same object overlap by far more than this.
_OVERLAP = 0.5
# How near the score at which a detector leaves objects out one may be that only one of two has, by rounding.
_NEAR = 1e-3
# The score from which on `fastvit predict` shows objects.
SHOWN = 0.3

Found = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Agreement:
    """Of what a detector finds in some images with what the reference finds.

    Attributes:
        objects: pairs of the same class and place.
        unpaired: objects that only one of the two has, though its score is not just at the edge.
        boxes: differences of the boxes of the pairs, in pixels.
        scores: differences of their scores.
        masks: differences of the probabilities of their masks; None without masks.
    """

    objects: int
    unpaired: int
    boxes: Differences
    scores: Differences
    masks: Differences | None

    def __str__(self) -> str:
        masks = f", masks by {self.masks.max_abs:.1e}" if self.masks else ""
        return (
            f"{self.objects} objects: boxes differ by at most {self.boxes.max_abs:.1e} px, scores by "
            f"{self.scores.max_abs:.1e}{masks}; {self.unpaired} found by one of the two alone"
        )


@dataclass(frozen=True)
class InUse:
    """What two detectors find in the same image files, each with its own preprocessing.

    Attributes:
        images: how many.
        both: objects that both find: of the same class, overlapping by more than half, and at least one of them shown.
        lost: objects that the reference alone finds and shows.
        invented: objects that the other alone finds and shows.
    """

    images: int
    both: int
    lost: int
    invented: int

    def __str__(self) -> str:
        return (
            f"{self.both} objects of a score of {SHOWN} and more are found by both, "
            f"{self.lost} by the checkpoint alone, {self.invented} by the artifact alone"
        )


def in_use(reference: Sequence[Objects], outputs: Sequence[Objects]) -> InUse:
    """Count what is found in the same images by two detectors, or by one of them alone.

    Args:
        reference: what the one finds in each image, in its pixels.
        outputs: what the other finds.
    """
    both = lost = invented = 0
    for expected, found in zip(reference, outputs, strict=True):
        sides = [{"boxes": side.boxes, "labels": side.labels, "scores": side.scores} for side in (expected, found)]
        first, second = _pairs(*sides)
        both += int((np.maximum(expected.scores[first], found.scores[second]) >= SHOWN).sum())
        lost += int((np.delete(expected.scores, first) >= SHOWN).sum())
        invented += int((np.delete(found.scores, second) >= SHOWN).sum())
    return InUse(len(reference), both, lost, invented)


def agreement(reference: Sequence[Found], outputs: Sequence[Found], options: DetectorConfig) -> Agreement | None:
    """Compare what two detectors find in the same images; None where neither finds anything.

    Args:
        reference: "boxes" (N, 4) xyxy, "labels" (N,), "scores" (N,), perhaps "masks" (N, S, S), of each image.
        outputs: of the other one.
        options: of both; they say which objects are left out.
    """
    pairs = [_paired(expected, found, options) for expected, found in zip(reference, outputs, strict=True)]
    unpaired = sum(alone for *_, alone in pairs)
    names = ("boxes", "scores", *(["masks"] if "masks" in reference[0] else []))
    columns = {
        name: [
            np.concatenate([found[name][kept] for found, kept in zip(side, chosen, strict=True)])
            for side, chosen in (
                (reference, [first for first, *_ in pairs]),
                (outputs, [second for _, second, _ in pairs]),
            )
        ]
        for name in names
    }
    count = len(columns["scores"][0])
    if not count:
        return None if not unpaired else Agreement(0, unpaired, _NOTHING, _NOTHING, None)
    found = {name: compare(*sides) for name, sides in columns.items()}
    return Agreement(count, unpaired, found["boxes"], found["scores"], found.get("masks"))


_NOTHING = Differences(0.0, 0.0, 1.0, None)


def _paired(expected: Found, found: Found, options: DetectorConfig) -> tuple[np.ndarray, np.ndarray, int]:
    """Indices of the pairs in either, and how many others there are that count."""
    first, second = _pairs(expected, found)
    alone = [
        (np.delete(expected["scores"], first), found["scores"]),
        (np.delete(found["scores"], second), expected["scores"]),
    ]
    unpaired = sum(int((scores > _edge(others, options) + _NEAR).sum()) for scores, others in alone)
    return first, second, unpaired


def _pairs(expected: Found, found: Found) -> tuple[np.ndarray, np.ndarray]:
    """Indices in either of what is the same object."""
    overlaps = box_iou(*(torch.as_tensor(side["boxes"]).double().reshape(-1, 4) for side in (expected, found))).numpy()
    same = expected["labels"][:, None] == found["labels"][None]
    # Of several that lie on each other the one of the nearest score is meant.
    gaps = np.abs(expected["scores"][:, None] - found["scores"][None])
    quality = np.where(same & (overlaps > _OVERLAP), overlaps - gaps, -np.inf)
    first, second = [], []
    free = np.ones(len(found["scores"]), bool)
    for index in range(len(expected["scores"])):
        row = np.where(free, quality[index], -np.inf)
        if len(row) and row.max() > -np.inf:
            best = int(row.argmax())
            free[best] = False
            first.append(index)
            second.append(best)
    return np.array(first, np.int64), np.array(second, np.int64)


def _edge(scores: np.ndarray, options: DetectorConfig) -> float:
    """The score below which a detector that gives these leaves objects out: its least, or that of the last it keeps."""
    least = options.score_thresh
    return max(least, float(scores.min())) if len(scores) >= options.max_detections else least
