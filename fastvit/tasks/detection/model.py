"""torchvision's detectors on a FastViT backbone."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.detection import FasterRCNN, MaskRCNN, RetinaNet
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.models.detection.retinanet import RetinaNetHead
from torchvision.models.detection.transform import GeneralizedRCNNTransform
from torchvision.ops import FeaturePyramidNetwork, MultiScaleRoIAlign, clip_boxes_to_image
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool, LastLevelP6P7
from torchvision.ops.poolers import initLevelMapper

from fastvit.model.backbone import Backbone
from fastvit.model.config import FastViTConfig
from fastvit.model.preprocessing import Preprocessing
from fastvit.model.task_model import TaskModel
from fastvit.tasks.detection.options import DetectorConfig

RATIOS = (0.5, 1.0, 2.0)
# Output sizes of RoIAlign for the box head and the mask head.
_BOX_GRID, _MASK_GRID = 7, 14
# Batches are padded to multiples of this many pixels per side.
_MULTIPLE = 32
# A box whose part inside the image is smaller than this, in pixels, is outside.
_LEAST = 1e-3

# Raw outputs for one image: "boxes" (N, 4) xyxy in its pixels, "labels" (N,) from 0, "scores" (N,), the highest first;
# from Mask R-CNN also "masks" (N, 28, 28), probabilities on a grid over each box.
Detections = dict[str, Tensor]
# Height and width, as numbers; while a graph is traced, as symbols.
Size = tuple[int, int]


class Padded(list[Tensor]):
    """One image, (1, C, H, W), cut from a fixed-size canvas and padded with zeros like a batch of this image alone.

    Detections near the border of an image depend on its padding. With the same padding, a graph with a fixed input size
    computes the same as the network on the image itself.

    Args:
        canvas: (1, C, H, W) normalized canvas with the image in the upper left corner; the rest is ignored.
        image_size: (1, 2) integers, height and width of the image, in pixels.

    Attributes:
        size: height and width of the image, in pixels.
    """

    def __init__(self, canvas: Tensor, image_size: Tensor) -> None:
        bottom, right = (-side % _MULTIPLE for side in canvas.shape[2:])
        canvas = F.pad(canvas, (0, right, 0, bottom))
        sides: Any = image_size[0]
        # Rounded up as a tensor, so that the tracer can derive that it is a multiple.
        multiples = (sides + _MULTIPLE - 1) // _MULTIPLE
        self.size: Size = (sides[0].item(), sides[1].item())
        for axis, side, count in zip((2, 3), self.size, (multiples[0].item(), multiples[1].item()), strict=True):
            torch._check(count >= 1)
            torch._check(count * _MULTIPLE <= canvas.shape[axis])
            canvas = canvas.narrow(axis, 0, count * _MULTIPLE)
            inside = torch.arange(count * _MULTIPLE, device=canvas.device) < side
            canvas = torch.where(inside if axis == 3 else inside[:, None], canvas, 0.0)
        super().__init__(canvas)


class Pyramid(nn.Module):
    """Backbone and FPN for torchvision's detectors: (B, C, H, W) images -> feature maps of equal channels, by name.

    Args:
        config: configuration of the backbone.
        options: options of the detector.

    Attributes:
        body: backbone.
        maps: number of feature maps.
    """

    def __init__(self, config: FastViTConfig, options: DetectorConfig) -> None:
        super().__init__()
        self.body = Backbone(config)
        self.out_channels = options.fpn_channels
        self._first = 1 if options.kind == "retinanet" else 0
        used = list(config.channels[self._first :])
        extra = LastLevelP6P7(options.fpn_channels, options.fpn_channels) if self._first else LastLevelMaxPool()
        self.fpn = FeaturePyramidNetwork(used, options.fpn_channels, extra)
        self.maps = len(used) + (2 if self._first else 1)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        maps = self.body(images)[self._first :]
        pyramid: dict[str, Tensor] = self.fpn({str(i): x for i, x in enumerate(maps)})
        return pyramid


class Batching(GeneralizedRCNNTransform):
    """Batching with zero padding instead of torchvision's transform; images are normalized and resized already.

    Detections are not changed: masks stay grids over the boxes, which are small to copy from the device.
    """

    def __init__(self) -> None:
        super().__init__(min_size=1, max_size=1, image_mean=[], image_std=[], size_divisible=_MULTIPLE)

    def forward(self, images: list[Tensor], targets: Any = None) -> tuple[ImageList, Any]:
        if isinstance(images, Padded):
            return ImageList(images[0][None], [images.size]), targets
        batch: tuple[ImageList, Any] = super().forward(images, targets)
        return batch

    def normalize(self, image: Tensor) -> Tensor:
        """Return the image unchanged; it is normalized already."""
        return image

    def resize(self, image: Tensor, target: Any = None) -> tuple[Tensor, Any]:
        """Return the image unchanged; it is resized already."""
        return image, target

    def postprocess(self, result: list[Detections], *sizes: Any) -> list[Detections]:
        """Return the detections unchanged."""
        return result


class SingleStage(RetinaNet):
    """torchvision's RetinaNet, with boxes outside the image dropped before the highest scores are selected."""

    def postprocess_detections(
        self, head_outputs: dict[str, list[Tensor]], anchors: list[list[Tensor]], image_shapes: list[Size]
    ) -> list[Detections]:
        """Return the detections of each image.

        Args:
            head_outputs: "cls_logits" and "bbox_regression", one tensor per feature map.
            anchors: anchors of each image, one tensor per feature map.
            image_shapes: height and width of each image, in pixels.
        """
        logits = []
        for level, (scores, codes) in enumerate(
            zip(head_outputs["cls_logits"], head_outputs["bbox_regression"], strict=True)
        ):
            boxes = [self.box_coder.decode_single(one, own[level]) for one, own in zip(codes, anchors, strict=True)]
            outside = torch.stack([_outside(*pair) for pair in zip(boxes, image_shapes, strict=True)])
            logits.append(scores.masked_fill(outside[..., None], -torch.inf))
        kept: list[Detections] = super().postprocess_detections(
            {**head_outputs, "cls_logits": logits}, anchors, image_shapes
        )
        return kept


def _outside(boxes: Tensor, size: Size) -> Tensor:
    """Return as (N,) bool which of (N, 4) boxes are outside an image."""
    clipped = clip_boxes_to_image(boxes, size)
    return (clipped[:, 2:] - clipped[:, :2] < _LEAST).any(1)


class Detector(TaskModel):
    """torchvision's Mask R-CNN, Faster R-CNN or RetinaNet, with an FPN on the feature maps of a FastViT backbone.

    In eval mode: images -> Detections for each. In train mode: images and targets -> losses by name; a target has
    "boxes" (N, 4) float32 xyxy in pixels, "labels" (N,) int64 from 0 and, for Mask R-CNN, "masks" (N, H, W) uint8.

    Attributes:
        network: torchvision's detector; its labels start at 1 if it has a background class.
        others: other attributes of `TaskModel`.
    """

    task = "detection"
    data_dependent = True
    default_preprocessing = Preprocessing((800, 1333), resize="resize_shorter")

    def __init__(
        self,
        config: FastViTConfig,
        variant: str = "custom",
        *,
        classes: Sequence[str] | None = None,
        preprocessing: Preprocessing | None = None,
        options: DetectorConfig | None = None,
    ) -> None:
        chosen = options or DetectorConfig()
        super().__init__(config, variant, classes=classes, preprocessing=preprocessing, options=chosen)
        self.input_names = ("images", "image_size")
        self.output_names = ("boxes", "labels", "scores", *(["masks"] if chosen.masks else []))
        self._background = 0 if chosen.kind == "retinanet" else 1
        self.network = _network(config, chosen)
        self.network.transform = Batching()

    @property
    def compiled_part(self) -> nn.Module:
        return self.trunk  # the selection of boxes depends on their values

    def traceable(self) -> AbstractContextManager[None]:
        from fastvit.tasks.detection.tracing import traceable

        return traceable()

    def onnx_operators(self) -> dict[Callable[..., Any], Callable[..., Any]]:
        from fastvit.tasks.detection.tracing import translations

        return translations()

    @property
    def pyramid(self) -> nn.Module:
        return cast(nn.Module, self.network.backbone)

    @property
    def pyramid_strides(self) -> tuple[int, ...]:
        first = 8 if self.options.kind == "retinanet" else 4
        return tuple(first * 2**level for level in range(cast(Pyramid, self.pyramid).maps))

    def forward(
        self, images: Sequence[Tensor] | Tensor, targets: Sequence[Detections] | None = None
    ) -> list[Detections] | dict[str, Tensor]:
        if self.training:
            shifted = [{**target, "labels": target["labels"] + self._background} for target in targets or ()]
            losses: dict[str, Tensor] = self.network(list(images), shifted)
            return losses
        shown = images if isinstance(images, Padded) else list(images)
        return [self._decoded(found) for found in self.network(shown)]

    def _decoded(self, found: Detections) -> Detections:
        kept = {name: found[name] for name in self.output_names} | {"labels": found["labels"] - self._background}
        return kept | {"masks": found["masks"].squeeze(1)} if "masks" in kept else kept

    def outputs(self, images: Tensor, image_size: Tensor | None = None) -> tuple[Tensor, ...]:
        """Return the raw outputs for one image, in the order of `output_names`.

        Args:
            images: (1, C, H, W) normalized image.
            image_size: (1, 2) integers, height and width of the image if it is only the upper left corner of `images`;
                None if it is all of `images`.
        """
        (found,) = self(images if image_size is None else Padded(images, image_size))
        return tuple(found[name] for name in self.output_names)


def _network(config: FastViTConfig, options: DetectorConfig) -> nn.Module:
    pyramid = Pyramid(config, options)
    sides = [options.anchor_size * 2**level for level in range(pyramid.maps)]
    if options.kind == "retinanet":
        # Three sizes per octave (arXiv 1708.02002, section 4).
        sizes = tuple(tuple(round(side * 2 ** (step / 3)) for step in range(3)) for side in sides)
        return SingleStage(
            pyramid,
            config.num_classes,
            anchor_generator=_anchors(sizes),
            head=RetinaNetHead(options.fpn_channels, len(RATIOS) * len(sizes[0]), config.num_classes, _norm),
            score_thresh=options.score_thresh,
            nms_thresh=options.nms_thresh,
            detections_per_img=options.max_detections,
        )
    strides = pyramid.body.strides
    settings: dict[str, Any] = {
        "rpn_anchor_generator": _anchors(tuple((side,) for side in sides)),
        "box_roi_pool": _pooling(strides, _BOX_GRID),
        # These are torchvision's fixed widths at an FPN of 256 channels.
        "box_head": TwoMLPHead(options.fpn_channels * _BOX_GRID**2, 4 * options.fpn_channels),
        "box_predictor": FastRCNNPredictor(4 * options.fpn_channels, config.num_classes + 1),
        "rpn_post_nms_top_n_train": 2 * options.post_nms_top_n,
        "rpn_post_nms_top_n_test": options.post_nms_top_n,
        "box_batch_size_per_image": options.roi_batch_size,
        "box_score_thresh": options.score_thresh,
        "box_nms_thresh": options.nms_thresh,
        "box_detections_per_img": options.max_detections,
    }
    if options.masks:
        settings |= {
            "mask_roi_pool": _pooling(strides, _MASK_GRID),
            "mask_head": MaskRCNNHeads(options.fpn_channels, (options.fpn_channels,) * 4, dilation=1),
            "mask_predictor": MaskRCNNPredictor(options.fpn_channels, options.fpn_channels, config.num_classes + 1),
        }
        return MaskRCNN(pyramid, **settings)
    return FasterRCNN(pyramid, **settings)


def _norm(channels: int) -> nn.GroupNorm:
    """Return group norm, as in torchvision's improved RetinaNet: without it, narrow heads hardly train."""
    # Eight channels per group, as there: one channel of a map of one pixel has no variance, which is an error in torch.
    return nn.GroupNorm(math.gcd(32, channels, max(channels // 8, 1)), channels)


def _anchors(sizes: tuple[tuple[int, ...], ...]) -> AnchorGenerator:
    with torch.device("cpu"):  # anchors are not part of the weights, and would have no values on `meta`
        return AnchorGenerator(sizes, (RATIOS,) * len(sizes))


def _pooling(strides: Sequence[int], side: int) -> MultiScaleRoIAlign:
    pooling = MultiScaleRoIAlign([str(i) for i in range(len(strides))], output_size=side, sampling_ratio=2)
    # By default torchvision derives the scales from the first image, for all others too, and wrongly from a narrow one.
    pooling.scales = [1 / stride for stride in strides]
    pooling.map_levels = initLevelMapper(int(math.log2(strides[0])), int(math.log2(strides[-1])))
    return pooling
