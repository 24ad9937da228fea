"""Options for training a classifier. Needs no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from fastvit.errors import UserError


@dataclass(frozen=True)
class MixupOptions:
    """Mixup and CutMix of training batches, and label smoothing.

    Attributes:
        mixup: alpha of mixup (arXiv 1710.09412); 0 for none.
        cutmix: alpha of CutMix (arXiv 1905.04899); 0 for none.
        mixup_switch_prob: probability of CutMix instead of mixup where both are on.
        mixup_prob: mixup probability: share of batches to which mixup or CutMix is applied.
        label_smoothing: label smoothing in the cross entropy, in [0, 1).
    """

    mixup: float = 0.2
    cutmix: float = 1.0
    mixup_switch_prob: float = 0.5
    mixup_prob: float = 1.0
    label_smoothing: float = 0.1


@dataclass(frozen=True)
class Distillation:
    """Knowledge distillation from a teacher network.

    The teacher sees the same images after mixup and CutMix, as in DeiT (arXiv 2012.12877), without an extra head.

    Attributes:
        teacher: teacher network: a timm model with its tag, FastViT weights (file, directory or Hub id), or an exported
            artifact; None for no distillation.
        kind: "hard" learns the teacher's likeliest class, "soft" its probabilities at `temperature`.
        alpha: weight of the teacher in the loss, in [0, 1].
        temperature: temperature of the softmax for "soft", above 0.
        size: side in pixels of the images that the teacher sees; None for its own.
        bf16: compute the teacher in bfloat16; None does so on GPUs.
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
        if not 0 <= self.alpha <= 1:
            raise UserError(f"distillation.alpha must be in 0 to 1, got {self.alpha}")
        if self.temperature <= 0:
            raise UserError(f"distillation.temperature must be above 0, got {self.temperature}")
