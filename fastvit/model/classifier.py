"""FastViT image classifier: backbone, expansion, head."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from fastvit.model.backbone import Backbone
from fastvit.model.blocks import MobileOne
from fastvit.model.config import FastViTConfig
from fastvit.model.layers import leave_one_branch
from fastvit.model.preprocessing import Preprocessing
from fastvit.model.task_model import TaskModel, class_names


class FastViT(TaskModel):
    """Image classifier: (B, in_chans, H, W) images -> (B, num_classes) logits; H and W are at least 32.

    See `TaskModel` for the attributes that all tasks share.

    Attributes:
        backbone: stem and stages; it returns a feature map per stage.
        expansion: convolution block that widens the last map.
        head: linear classifier; nn.Identity if `num_classes` is 0.
        num_features: length of the pooled feature vector.

    Raises:
        UserError: the number of class names differs from `num_classes`.
    """

    task = "classification"
    output_names = ("logits",)

    def __init__(
        self,
        config: FastViTConfig,
        variant: str = "custom",
        *,
        classes: Sequence[str] | None = None,
        preprocessing: Preprocessing | None = None,
    ) -> None:
        super().__init__(config, variant, classes=classes, preprocessing=preprocessing)
        self.backbone = Backbone(config)
        width = config.stages[-1].width
        self.num_features = width * config.expansion
        self.expansion = MobileOne(width, self.num_features, (3, 1), groups=width, se_ratio=1 / 16)
        if not config.overparameterized:
            leave_one_branch(self.expansion)
        self.head: nn.Module = _head(self.num_features, config.num_classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.forward_head(self.forward_features(x))

    def outputs(self, images: Tensor) -> tuple[Tensor, ...]:
        return (self(images),)

    def forward_features(self, x: Tensor) -> Tensor:
        """Return the expanded last map, (B, num_features, H / 32, W / 32)."""
        return self.expansion(self.backbone(x)[-1])

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Return logits (B, num_classes) for a map of `forward_features`; pooled features with `pre_logits`."""
        pooled = x.mean((2, 3))
        return pooled if pre_logits else self.head(pooled)

    def get_classifier(self) -> nn.Module:
        """Return the head, as timm's method of this name does."""
        return self.head

    def reset_classifier(self, num_classes: int, *, classes: Sequence[str] | None = None) -> None:
        """Replace the head with a new, untrained one.

        Args:
            num_classes: number of classes; 0 for no head.
            classes: names of the classes; by default None.

        Raises:
            UserError: the number of class names differs from `num_classes`.
        """
        names = class_names(classes, num_classes)
        weight = next(self.expansion.parameters())
        self.head = _head(self.num_features, num_classes).to(weight.device, weight.dtype)
        self.config = self.config.replace(num_classes=num_classes)
        self.backbone.config = self.config
        self.classes = names


def _head(features: int, classes: int) -> nn.Module:
    if classes == 0:
        return nn.Identity()
    head = nn.Linear(features, classes)
    nn.init.trunc_normal_(head.weight, std=0.02)
    nn.init.zeros_(head.bias)
    return head
