"""What a person may choose of training a classifier. Needs no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from fastvit.errors import UserError


@dataclass(frozen=True)
class Mixing:
    """Of whole batches, on the device.

    Attributes:
        mixup: alpha of mixup, 0 for none (arXiv 1710.09412).
        cutmix: alpha of CutMix, 0 for none (arXiv 1905.04899).
        switch: probability of CutMix where both are on.
        prob: share of batches that are mixed.
        smoothing: label smoothing, in [0, 1).
    """

    mixup: float = 0.2
    cutmix: float = 1.0
    switch: float = 0.5
    prob: float = 1.0
    smoothing: float = 0.1


@dataclass(frozen=True)
class Distillation:
    """Learning from a teacher's answers to the same mixed images, as in DeiT (arXiv 2012.12877), without an extra head.

    Attributes:
        teacher: a timm model with its tag, weights of ours (file, directory or Hub id), or an exported artifact; None
            for no distillation.
        kind: "hard" learns the teacher's likeliest class, "soft" its probabilities at `temperature`.
        alpha: share of the teacher in the loss, in [0, 1].
        temperature: of the soft kind, above 0.
        size: side in pixels of the images that the teacher sees; None for its own.
        bf16: let the teacher compute in bfloat16; None: on GPUs.
        compile: run the teacher through torch.compile.
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
