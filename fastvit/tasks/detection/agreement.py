"""Comparison of the detections of two detectors, whose objects are matched first.

`agreement` compares detectors with identical inputs, which differ by rounding only. `in_use` compares detectors on the
same image files when each has its own preprocessing, such as its own image size.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torchvision.ops import box_iou

from fastvit.console import counted
from fastvit.numerics import Differences, compare
from fastvit.tasks.detection.decoding import Objects
from fastvit.tasks.detection.options import DetectorConfig

# Smallest IoU of a matched pair; two detections of the same object overlap by far more.
_OVERLAP = 0.5
# An object that only one detector keeps does not count if its score is this close to the other's cutoff: by rounding.
_NEAR = 1e-3
# Score threshold of `fastvit predict`.
SHOWN = 0.3

Found = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Agreement:
    """Agreement of the detections of a detector with those of a reference.

    Attributes:
        objects: number of matched pairs: the same class, and boxes that overlap by more than half.
        unpaired: number of objects that only one of the two detects, with a score clearly above the cutoff.
        boxes: differences of the boxes of the pairs, in pixels.
        scores: differences of the scores of the pairs.
        masks: differences of the mask probabilities of the pairs; None without masks.
    """

    objects: int
    unpaired: int
    boxes: Differences
    scores: Differences
    masks: Differences | None

    def text(self, images: str) -> str:
        """Return the agreement on one line.

        Args:
            images: the images that it was measured on, such as "2 images".
        """
        masks = f", masks by {self.masks.max_abs:.1e}" if self.masks else ""
        return (
            f"{counted(self.objects, 'object')} on {images}: boxes differ by at most {self.boxes.max_abs:.1e} px, "
            f"scores by {self.scores.max_abs:.1e}{masks}; {counted(self.unpaired, 'unmatched object')}"
        )


@dataclass(frozen=True)
class InUse:
    """Detections of two detectors in the same image files, each with its own preprocessing.

    Attributes:
        images: number of images.
        both: number of objects that both detect: of the same class, with boxes that overlap by more than half, and at
            least one of the scores at or above SHOWN.
        lost: number of objects that only the reference detects, with a score of SHOWN or more.
        invented: number of objects that only the other one detects, with a score of SHOWN or more.
    """

    images: int
    both: int
    lost: int
    invented: int

    def __str__(self) -> str:
        return (
            f"{counted(self.both, 'object')} with a score of at least {SHOWN} are detected by both, "
            f"{self.lost} by the checkpoint only, {self.invented} by the artifact only"
        )


def in_use(reference: Sequence[Objects], outputs: Sequence[Objects]) -> InUse:
    """Count the objects that both detectors detect in the same images, and those that only one of them detects.

    Args:
        reference: detections of the reference in each image, in pixels of the image.
        outputs: detections of the other one.
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
    """Compare the detections of two detectors in the same images; return None without detections to compare.

    Args:
        reference: detections of the reference in each image: "boxes" (N, 4) xyxy in pixels, "labels" (N,), "scores"
            (N,), and, with masks, "masks" (N, S, S).
        outputs: detections of the other one in each image, in the same form.
        options: options of both detectors, including the score threshold and the largest number of detections.
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
    """Return the indices of the pairs in either, and the number of unmatched objects clearly above the cutoff."""
    first, second = _pairs(expected, found)
    alone = [
        (np.delete(expected["scores"], first), found["scores"]),
        (np.delete(found["scores"], second), expected["scores"]),
    ]
    unpaired = sum(int((scores > _edge(others, options) + _NEAR).sum()) for scores, others in alone)
    return first, second, unpaired


def _pairs(expected: Found, found: Found) -> tuple[np.ndarray, np.ndarray]:
    """Return the indices in either of the detections that are the same object."""
    overlaps = box_iou(*(torch.as_tensor(side["boxes"]).double().reshape(-1, 4) for side in (expected, found))).numpy()
    same = expected["labels"][:, None] == found["labels"][None]
    # Among overlapping candidates, a closer score is better.
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
    """Return the score cutoff of a detector with these scores: its threshold, or the lowest score if it is full."""
    least = options.score_thresh
    return max(least, float(scores.min())) if len(scores) >= options.max_detections else least
