"""Knowledge distillation (DeiT, arXiv 2012.12877): the teacher and the distillation loss."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fastvit.data.classes import shortened
from fastvit.data.imagenet import is_imagenet
from fastvit.errors import UserError
from fastvit.model.preprocessing import Preprocessing

# Waits for the teacher's logits and returns them.
TeacherLogits = Callable[[], Tensor]


@dataclass(frozen=True)
class DistillationTargets:
    """Targets of a batch: labels, as (B,) indices or (B, classes) probabilities, and the teacher's logits."""

    labels: Tensor
    teacher_logits: TeacherLogits


def distillation_loss(
    outputs: Tensor, teacher: Tensor, kind: Literal["hard", "soft"] = "hard", temperature: float = 1.0
) -> Tensor:
    """Return the distillation loss, the mean over the batch.

    Hard: cross entropy with the teacher's most likely class. Soft: T^2 KL(teacher at T || student at T), as in DeiT's
    paper; DeiT's code also divides it by the number of classes.

    Args:
        outputs: (B, classes) logits of the student.
        teacher: (B, classes) logits of the teacher.
        kind: "hard" or "soft".
        temperature: temperature T of the soft loss.
    """
    if kind == "hard":
        return F.cross_entropy(outputs, teacher.argmax(1))
    log_student, log_teacher = (F.log_softmax(logits.float() / temperature, 1) for logits in (outputs, teacher))
    return temperature**2 * F.kl_div(log_student, log_teacher, reduction="batchmean", log_target=True)


def convert(images: Tensor, source: Preprocessing, target: Preprocessing) -> Tensor:
    """Convert images that are preprocessed for one model to another model's mean, std and size.

    Images are only rescaled to the target's size; the crop stays the same.

    Args:
        images: (B, C, H, W) images, normalized with the mean and std of `source`.
        source: preprocessing of the images.
        target: preprocessing that the other model expects.
    """
    device, dtype = images.device, images.dtype
    means, stds = (
        [torch.tensor(values, device=device, dtype=dtype).view(-1, 1, 1) for values in pair]
        for pair in ((source.mean, target.mean), (source.std, target.std))
    )
    if source.size != target.size:
        images = F.interpolate(images, target.size, mode="bicubic", antialias=True, align_corners=False)
    if (source.mean, source.std) == (target.mean, target.std):
        return images
    return (images * stds[0] + means[0] - means[1]) / stds[1]


class Teacher:
    """Distillation teacher: a network without gradients, or any function from images to logits.

    The teacher is not a submodule of the student, so it is not trained, averaged, saved or copied with the student.

    Args:
        logits: function from (B, C, H, W) images, preprocessed for the teacher, to (B, classes) logits.
        preprocessing: preprocessing that the teacher expects.
        classes: class names of the teacher; None if they are not known.
        num_classes: number of the teacher's classes.
        bf16: run in bfloat16; None does so on GPUs only.
    """

    def __init__(
        self,
        logits: Callable[[Tensor], Tensor],
        preprocessing: Preprocessing,
        classes: tuple[str, ...] | None,
        num_classes: int,
        bf16: bool | None = None,
    ) -> None:
        self._logits = logits.eval().requires_grad_(False) if isinstance(logits, nn.Module) else logits
        self._bf16 = bf16
        self.preprocessing, self.classes, self.num_classes = preprocessing, classes, num_classes
        self._columns: list[int] | None = None
        self._thread: ThreadPoolExecutor | None = None
        self._stream: Any = None

    def __deepcopy__(self, memo: dict[int, Any]) -> Teacher:
        return self

    def match(self, classes: tuple[str, ...]) -> None:
        """Reorder the teacher's logits to the order of the student's classes, matched by name.

        Raises:
            UserError: the teacher has other classes than the student.
        """
        if self.num_classes != len(classes):
            raise UserError(f"the teacher has {self.num_classes} classes, the student {shortened(classes)}")
        theirs = self.classes
        if theirs is None or theirs == classes or (is_imagenet(theirs) and is_imagenet(classes)):
            return
        if unknown := sorted(set(classes) - set(theirs)):
            raise UserError(f"the teacher has no output for these classes of the student: {shortened(unknown)}")
        self._columns = [theirs.index(name) for name in classes]

    def to(self, device: torch.device) -> None:
        """Move a module to a device; any other teacher runs in a thread on the CPU, in parallel with the student."""
        if not isinstance(self._logits, nn.Module):
            self._thread = ThreadPoolExecutor(1, "teacher")
            return
        self._logits.to(device)
        if device.type == "cuda":
            self._stream = torch.cuda.Stream(device)

    def start(self, images: Tensor, source: Preprocessing) -> TeacherLogits:
        """Start the teacher on images, and return a function that waits for the logits.

        On a GPU the teacher runs in its own stream, in parallel with the student's forward pass.

        Args:
            images: (B, C, H, W) images, preprocessed for the student.
            source: preprocessing of the images.
        """
        images = convert(images.detach(), source, self.preprocessing)
        if self._thread is not None:
            device, future = images.device, self._thread.submit(self._logits, images.cpu())
            return lambda: self._ordered(future.result().to(device))
        if self._stream is None:
            logits = self._network(images)
            return lambda: logits
        stream, here = self._stream, torch.cuda.current_stream(images.device)
        stream.wait_stream(here)
        with torch.cuda.stream(stream):
            logits = self._network(images)
        images.record_stream(stream)

        def wait() -> Tensor:
            now = torch.cuda.current_stream(logits.device)
            now.wait_stream(stream)
            logits.record_stream(now)
            return logits

        return wait

    def _network(self, images: Tensor) -> Tensor:
        bf16 = images.is_cuda if self._bf16 is None else self._bf16
        with torch.no_grad(), torch.autocast(images.device.type, torch.bfloat16, enabled=bf16):
            return self._ordered(self._logits(images)).float()

    def _ordered(self, logits: Tensor) -> Tensor:
        return logits if self._columns is None else logits[:, self._columns]
