"""Options for training a classifier. Needs no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from fastvit.ranges import COUNT, NOT_NEGATIVE, POSITIVE, PROBABILITY, RATE, check_ranges


@dataclass(frozen=True)
class MixupOptions:
    """Mixup and CutMix of training batches, and label smoothing.

    Attributes:
        mixup: mixup alpha (arXiv 1710.09412); 0 turns mixup off.
        cutmix: CutMix alpha (arXiv 1905.04899); 0 turns CutMix off.
        mixup_switch_prob: probability of CutMix instead of mixup for a batch, where both are on.
        mixup_prob: mixup probability: probability that mixup or CutMix is applied to a batch.
        label_smoothing: label smoothing: share of the target probability that is spread over all classes, in [0, 1).
    """

    mixup: float = 0.2
    cutmix: float = 1.0
    mixup_switch_prob: float = 0.5
    mixup_prob: float = 1.0
    label_smoothing: float = 0.1

    def __post_init__(self) -> None:
        ranges = {
            "mixup": NOT_NEGATIVE,
            "cutmix": NOT_NEGATIVE,
            "mixup_switch_prob": PROBABILITY,
            "mixup_prob": PROBABILITY,
            "label_smoothing": RATE,
        }
        check_ranges(self, ranges, "mixup.")


@dataclass(frozen=True)
class Distillation:
    """Knowledge distillation from a teacher network.

    As in DeiT (arXiv 2012.12877), but without an extra head: teacher and student get the same images, after mixup and
    CutMix.

    Attributes:
        teacher: teacher network: a timm model with its tag, FastViT weights (file, directory or Hub id), or an exported
            artifact; None for no distillation.
        kind: distillation targets: "hard" for the teacher's most likely class, "soft" for its probabilities at
            `temperature`.
        alpha: weight of the distillation loss, in [0, 1]; the loss on the labels has the weight 1 - alpha.
        temperature: temperature of the softmax for "soft", above 0.
        size: height and width of the teacher's input images, in pixels; None for the teacher's own size.
        bf16: run the teacher in bfloat16; None does so on GPUs only.
        compile: compile the teacher with torch.compile.
    """

    teacher: str | None = None
    kind: Literal["hard", "soft"] = "hard"
    alpha: float = 0.5
    temperature: float = 1.0
    size: int | None = None
    bf16: bool | None = None
    compile: bool = False

    def __post_init__(self) -> None:
        check_ranges(self, {"alpha": PROBABILITY, "temperature": POSITIVE, "size": COUNT}, "distillation.")
