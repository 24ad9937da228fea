"""Semantic segmentation on a FastViT backbone."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from fastvit.model.backbone import Backbone
from fastvit.model.config import FastViTConfig
from fastvit.model.preprocessing import Preprocessing
from fastvit.model.task_model import TaskModel
from fastvit.tasks.segmentation.heads import SemanticFPN, UPerNet, upsampled
from fastvit.tasks.segmentation.inference import slide
from fastvit.tasks.segmentation.options import SegmenterConfig

# Stride of the backbone's coarsest feature map.
_LEAST = 32


class Segmenter(TaskModel):
    """Semantic FPN or UPerNet: (B, in_chans, H, W) images of any size -> (B, num_classes, H, W) logits.

    Attributes:
        backbone: backbone with four stages.
        decoder: segmentation head, from feature maps to features at stride 4.
        classifier: 1x1 convolution.
        others: other attributes of `TaskModel`.
    """

    task = "segmentation"
    default_preprocessing = Preprocessing((512, 2048), resize="resize_shorter")
    output_names = ("logits",)

    def __init__(
        self,
        config: FastViTConfig,
        variant: str = "custom",
        *,
        classes: Sequence[str] | None = None,
        preprocessing: Preprocessing | None = None,
        options: SegmenterConfig | None = None,
    ) -> None:
        chosen = options or SegmenterConfig()
        super().__init__(config, variant, classes=classes, preprocessing=preprocessing, options=chosen)
        self.backbone = Backbone(config)
        self.decoder = (
            SemanticFPN(config.channels, chosen.fpn_channels, chosen.head_channels)
            if chosen.head == "fpn"
            else UPerNet(config.channels, chosen.fpn_channels)
        )
        self.dropout = nn.Dropout2d(chosen.dropout)
        self.classifier = nn.Conv2d(self.decoder.out_channels, config.num_classes, 1)

    def forward(self, images: Tensor) -> Tensor:
        height, width = images.shape[-2:]
        if height < _LEAST or width < _LEAST:
            padded = F.pad(images, (0, max(_LEAST - width, 0), 0, max(_LEAST - height, 0)))
            return self(padded)[..., :height, :width]
        features = self.decoder(self.backbone(images))
        return upsampled(self.classifier(self.dropout(features)), images)

    def outputs(self, images: Tensor) -> tuple[Tensor, ...]:
        if window := self.options.slide_window:
            return (slide(self, images, window, max(2 * window // 3, 1)),)
        return (self(images),)
