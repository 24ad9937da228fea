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
# Points a side that are looked at in a region, for its box and for its mask.
_BOX_GRID, _MASK_GRID = 7, 14
# Batches are padded to whole multiples of this many pixels a side.
_MULTIPLE = 32
# Boxes that are smaller than this inside an image, in pixels, are outside of it.
_LEAST = 1e-3

# One image: "boxes" (N, 4) xyxy in its pixels, "labels" (N,) from 0, "scores" (N,), best first; of Mask R-CNN "masks"
# (N, 28, 28), the probability of belonging to the object for a grid laid over its box.
Detections = dict[str, Tensor]
# Height and width; numbers, which are symbols while a graph is traced.
Size = tuple[int, int]


class Padded(list[Tensor]):
    """One image, (1, C, H, W), padded with zeros as a batch of it alone is, out of the upper left corner of a canvas.

    So a graph for canvases of a fixed size computes what the network does with the image itself: what a network finds
    near the border of an image depends on how far it is padded.

    Args:
        canvas: (1, C, H, W), normalized; what is in it around the image does not matter.
        image_size: (1, 2) whole numbers, height and width of the image.

    Attributes:
        size: height and width of the image.
    """

    def __init__(self, canvas: Tensor, image_size: Tensor) -> None:
        bottom, right = (-side % _MULTIPLE for side in canvas.shape[2:])
        canvas = F.pad(canvas, (0, right, 0, bottom))
        sides: Any = image_size[0]
        # Rounded up as a tensor: what is traced knows so that it is a multiple.
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
    """(B, C, H, W) images -> maps of equal width by name, as torchvision's detectors take them.

    Args:
        config: of the backbone.
        options: of the detector.

    Attributes:
        body: the backbone.
        maps: how many there are.
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
    """Images of different sizes, normalized and resized already, as one batch padded with zeros; nothing else.

    Detections are left as they are: their masks stay grids over their boxes, which is what a device passes on.
    """

    def __init__(self) -> None:
        super().__init__(min_size=1, max_size=1, image_mean=[], image_std=[], size_divisible=_MULTIPLE)

    def forward(self, images: list[Tensor], targets: Any = None) -> tuple[ImageList, Any]:
        if isinstance(images, Padded):
            return ImageList(images[0][None], [images.size]), targets
        batch: tuple[ImageList, Any] = super().forward(images, targets)
        return batch

    def normalize(self, image: Tensor) -> Tensor:
        return image

    def resize(self, image: Tensor, target: Any = None) -> tuple[Tensor, Any]:
        return image, target

    def postprocess(self, result: list[Detections], *sizes: Any) -> list[Detections]:
        return result


class SingleStage(RetinaNet):
    """torchvision's RetinaNet, but boxes outside of their image are left out before the best are taken."""

    def postprocess_detections(
        self, head_outputs: dict[str, list[Tensor]], anchors: list[list[Tensor]], image_shapes: list[Size]
    ) -> list[Detections]:
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
    """(N, 4) -> (N,): which have nothing inside an image."""
    clipped = clip_boxes_to_image(boxes, size)
    return (clipped[:, 2:] - clipped[:, :2] < _LEAST).any(1)


class Detector(TaskModel):
    """Mask R-CNN, Faster R-CNN or RetinaNet, torchvision's, with the four maps of a FastViT under a feature pyramid.

    In eval mode images -> Detections for each. In train mode images and targets -> losses by name; a target has "boxes"
    (N, 4) float32 xyxy in pixels, "labels" (N,) int64 from 0 and, for Mask R-CNN, "masks" (N, H, W) uint8.

    Attributes:
        network: torchvision's; its classes count from 1 where it has a background.
        others: as `TaskModel` has them.
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
        return self.trunk  # boxes are chosen by their values

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
        """Of one image, (1, C, H, W).

        Args:
            images: normalized.
            image_size: (1, 2) whole numbers, height and width of the image where it lies in the upper left corner of
                `images`; None where it is all of it.
        """
        (found,) = self(images if image_size is None else Padded(images, image_size))
        return tuple(found[name] for name in self.output_names)


def _network(config: FastViTConfig, options: DetectorConfig) -> nn.Module:
    pyramid = Pyramid(config, options)
    sides = [options.anchor_size * 2**level for level in range(pyramid.maps)]
    if options.kind == "retinanet":
        # Three sizes an octave (arXiv 1708.02002, section 4).
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
        # torchvision's heads, whose widths are fixed, at a pyramid of 256 channels.
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
    """As torchvision's improved RetinaNet has it: without, narrow heads hardly learn from their small first weights."""
    # Eight channels a group, as there: one of a map of one pixel would have no variance, which torch refuses.
    return nn.GroupNorm(math.gcd(32, channels, max(channels // 8, 1)), channels)


def _anchors(sizes: tuple[tuple[int, ...], ...]) -> AnchorGenerator:
    with torch.device("cpu"):  # they are no part of the weights, and would stay without values on `meta`
        return AnchorGenerator(sizes, (RATIOS,) * len(sizes))


def _pooling(strides: Sequence[int], side: int) -> MultiScaleRoIAlign:
    pooling = MultiScaleRoIAlign([str(i) for i in range(len(strides))], output_size=side, sampling_ratio=2)
    # Left to itself it takes them from the first image that it is shown, for good, and from a narrow one wrongly.
    pooling.scales = [1 / stride for stride in strides]
    pooling.map_levels = initLevelMapper(int(math.log2(strides[0])), int(math.log2(strides[-1])))
    return pooling
