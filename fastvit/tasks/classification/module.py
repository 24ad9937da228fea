"""Training of a classifier: loss, mixup, distillation and validation metrics."""

from __future__ import annotations

from timm.data import Mixup
from timm.data.random_erasing import RandomErasing
from torch import Tensor
from torch.nn import functional as F

from fastvit.data.datasets import IGNORED
from fastvit.evaluation.evaluate import accuracy
from fastvit.model.classifier import FastViT
from fastvit.tasks.classification.distillation import DistillationTargets, Teacher, distillation_loss
from fastvit.tasks.classification.options import Distillation, MixupOptions
from fastvit.training.task import Configure, Task


class ClassificationTask(Task):
    """LightningModule of a classifier, with cross entropy on (B, classes) logits.

    Targets are (B,) class indices, or (B, classes) probabilities after mixup. With a teacher, the distillation loss on
    the same images is added.

    Args:
        model: classifier to train.
        mixup: mixup, CutMix and label smoothing; None for none of them.
        configure: function that returns the optimizer and its schedule.
        random_erasing: probability of random erasing.
        teacher: distillation teacher; None for no distillation.
        distillation: options of the distillation; None for the defaults.

    Raises:
        UserError: the teacher has other classes than the model.
    """

    def __init__(
        self,
        model: FastViT,
        mixup: MixupOptions | None = None,
        configure: Configure | None = None,
        random_erasing: float = 0.0,
        teacher: Teacher | None = None,
        distillation: Distillation | None = None,
    ) -> None:
        super().__init__(model, accuracy(model.num_classes), configure)
        self._teacher = teacher
        self._preprocessing = model.preprocessing
        self._distillation = distillation or Distillation()
        if teacher:
            teacher.match(model.classes or tuple(map(str, range(model.num_classes))))
        self.label_smoothing = mixup.label_smoothing if mixup else 0.0
        self._erase = random_erasing
        self._mix = (
            Mixup(
                mixup.mixup,
                mixup.cutmix,
                prob=mixup.mixup_prob,
                switch_prob=mixup.mixup_switch_prob,
                label_smoothing=mixup.label_smoothing,
                num_classes=model.num_classes,
            )
            if mixup and mixup.mixup_prob and (mixup.mixup or mixup.cutmix)
            else None
        )

    def on_fit_start(self) -> None:
        if self._teacher:
            self._teacher.to(self.device)

    def losses(self, images: Tensor, targets: Tensor) -> dict[str, Tensor]:
        return super().losses(*self.prepare(images, targets))

    def prepare(self, images: Tensor, targets: Tensor) -> tuple[Tensor, Tensor | DistillationTargets]:
        """Apply random erasing, mixup or CutMix, and the teacher to a normalized batch on the device."""
        if self._erase:
            images = RandomErasing(self._erase, mode="pixel", device=images.device)(images)
        # Mixup pairs the images of a batch, so it needs an even number of them.
        if self._mix is not None and len(images) % 2 == 0:
            images, targets = self._mix(images, targets)
        if self._teacher is None:
            return images, targets
        return images, DistillationTargets(targets, self._teacher.start(images, self._preprocessing))

    def loss(self, outputs: Tensor, targets: Tensor | DistillationTargets) -> Tensor:
        if isinstance(targets, DistillationTargets):
            chosen = self._distillation
            taught = distillation_loss(outputs, targets.teacher_logits(), chosen.kind, chosen.temperature)
            return (1 - chosen.alpha) * self.loss(outputs, targets.labels) + chosen.alpha * taught
        # Soft labels are smoothed already.
        smoothing = 0.0 if targets.is_floating_point() else self.label_smoothing
        return F.cross_entropy(outputs, targets, label_smoothing=smoothing)

    def validate(self, images: Tensor, targets: Tensor) -> None:
        """Measure a validation batch; its loss is on the plain labels, without mixup, label smoothing and teacher."""
        outputs = self(images)
        if count := int((targets != IGNORED).sum()):  # the others only pad the batch
            self.measure(outputs, targets, F.cross_entropy(outputs, targets, ignore_index=IGNORED), count)
