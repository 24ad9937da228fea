"""Learning from a teacher (DeiT, arXiv 2012.12877): the teacher's logits, and the loss on them."""

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

# Waits for the teacher's logits.
TeacherLogits = Callable[[], Tensor]


@dataclass(frozen=True)
class DistillationTargets:
    """Targets of a batch: labels, (B,) indices or (B, classes) soft, and the teacher's logits."""

    labels: Tensor
    teacher_logits: TeacherLogits


def distillation_loss(
    outputs: Tensor, teacher: Tensor, kind: Literal["hard", "soft"] = "hard", temperature: float = 1.0
) -> Tensor:
    """Return the distillation loss, the mean over the batch.

    Hard: cross entropy with the teacher's most likely class. Soft: T^2 KL(teacher at T || student at T); DeiT's code
    divides it by the number of classes as well, its paper does not, nor do we.

    Args:
        outputs: (B, classes) logits of the student.
        teacher: (B, classes) logits of the teacher.
        kind: "hard" or "soft".
        temperature: T, of the soft kind.
    """
    if kind == "hard":
        return F.cross_entropy(outputs, teacher.argmax(1))
    log_student, log_teacher = (F.log_softmax(logits.float() / temperature, 1) for logits in (outputs, teacher))
    return temperature**2 * F.kl_div(log_student, log_teacher, reduction="batchmean", log_target=True)


def convert(images: Tensor, source: Preprocessing, target: Preprocessing) -> Tensor:
    """Images normalized for one model, (B, C, H, W), as another expects them: its mean, std and size.

    Only the scale of a training image is changed, to the target's size; what was cropped away stays away.
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
    """A distillation teacher: a network without gradients, or any function from images to logits.

    It is not a submodule of the student: it is not trained, averaged, saved or copied with it.

    Args:
        logits: (B, C, H, W) images, preprocessed for the teacher -> (B, classes) logits.
        preprocessing: what the teacher expects.
        classes: its class names, if it has any.
        num_classes: length of its logits.
        bf16: compute in bfloat16; None: on GPUs.
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
        """Reorder the logits to the student's classes, by name.

        Raises:
            UserError: the classes differ from the student's.
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
        """Move a network to the device; any other function runs in a thread on the CPU, beside the student."""
        if not isinstance(self._logits, nn.Module):
            self._thread = ThreadPoolExecutor(1, "teacher")
            return
        self._logits.to(device)
        if device.type == "cuda":
            self._stream = torch.cuda.Stream(device)

    def ask(self, images: Tensor, source: Preprocessing) -> TeacherLogits:
        """Start the teacher on (B, C, H, W) images, preprocessed for the student; calling the result waits for logits.

        On a GPU the teacher runs in a stream of its own, so that the student's forward pass need not wait for it.
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
