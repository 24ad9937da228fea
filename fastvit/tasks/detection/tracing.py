"""What torch.export and ONNX need to hear of torchvision's detectors."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from onnxscript import opset18
from torch import Tensor
from torchvision.models.detection import _utils as det_utils
from torchvision.models.detection._utils import BoxCoder
from torchvision.ops import boxes as box_ops
from torchvision.ops import poolers

from fastvit.suppress_output import ALONE

op: Any = opset18  # its own types know nothing of what it turns numbers and lists into
# Above so many boxes torchvision suppresses them as they are on the CPU, up to it moved apart by group.
_MOVED_APART = 1000


@contextmanager
def traceable() -> Iterator[None]:
    """Replace what torch.export cannot trace of torchvision, each by what gives the same for any count of boxes.

    What is replaced is the process's. So other threads that want to trace wait, or a second one would take the first
    one's functions for torchvision's; those that run a detector meanwhile get the same outputs.
    """
    with ALONE, ExitStack() as replaced:
        for owner, name, function in (
            (box_ops, "batched_nms", _batched_nms),  # it takes one of two ways by the count of boxes
            (BoxCoder, "decode", _decode),  # it reshapes only if there are boxes
            (poolers, "len", _length),  # the builtins must give a number
            (det_utils, "_topk_min", _topk_min),  # likewise
        ):
            replaced.enter_context(_replaced(owner, name, function))
        yield


@contextmanager
def _replaced(owner: object, name: str, function: Callable[..., Any]) -> Iterator[None]:
    """Set an attribute of a module or class, also one that hides a builtin, and put back afterwards what was there."""
    before = vars(owner).get(name)
    setattr(owner, name, function)
    try:
        yield
    finally:
        if before is None:
            delattr(owner, name)
        else:
            setattr(owner, name, before)


def translations() -> dict[Callable[..., Any], Callable[..., Any]]:
    """For torch.onnx.export: ONNX for the operator that `traceable` puts in."""
    return {torch.ops.fastvit.batched_nms.default: _batched_nms_to_onnx}


_torchvision_batched_nms = box_ops.batched_nms


@torch.library.custom_op("fastvit::batched_nms", mutates_args=())
def _batched_nms(boxes: Tensor, scores: Tensor, idxs: Tensor, iou_threshold: float) -> Tensor:
    """Torchvision's own, as one node of a traced graph."""
    return _torchvision_batched_nms(boxes, scores, idxs, iou_threshold)


@_batched_nms.register_fake
def _(boxes: Tensor, scores: Tensor, idxs: Tensor, iou_threshold: float) -> Tensor:
    return idxs.new_empty(torch.library.get_ctx().new_dynamic_size())


def _batched_nms_to_onnx(boxes: Any, scores: Any, idxs: Any, iou_threshold: float) -> Any:
    """Boxes with (N,) scores of 0 or more and (N,) groups from 0 on -> indices of those kept, by falling score.

    The boxes of a group are the candidates of a class of ONNX's operator: the others get a score below its threshold.
    torchvision moves the boxes of the groups apart instead where they are not many; the same is done here only so that
    coordinates are rounded as they are there.
    """
    count = op.Shape(scores)
    # A zero more, as there may be no boxes.
    farthest = op.ReduceMax(op.Concat(op.Reshape(boxes, [-1]), op.Constant(value_floats=[0.0]), axis=0), keepdims=0)
    step = op.Where(op.Greater(count, [_MOVED_APART]), 0.0, op.Add(farthest, 1.0))
    moved = op.Add(boxes, op.Unsqueeze(op.Mul(op.CastLike(idxs, boxes), step), [1]))

    last = op.ReduceMax(op.Concat(idxs, op.Constant(value_ints=[0]), axis=0), keepdims=0)
    groups = op.Range(0, op.Add(last, 1), 1)
    of_group = op.Where(op.Equal(op.Unsqueeze(groups, [1]), op.Unsqueeze(idxs, [0])), scores, -1.0)
    kept = op.NonMaxSuppression(op.Unsqueeze(moved, [0]), op.Unsqueeze(of_group, [0]), count, [iou_threshold], [-0.5])

    indices = op.Squeeze(op.Slice(kept, [2], [3], [1]), [1])
    kept_scores = op.ScatterElements(
        op.Expand(op.Constant(value_float=-1.0), count), indices, op.Gather(scores, indices)
    )
    _, order = op.TopK(kept_scores, op.Shape(indices))  # of equal ones the first comes first, as in torch
    return order


def _decode(coder: BoxCoder, rel_codes: Tensor, boxes: list[Tensor]) -> Tensor:
    return coder.decode_single(rel_codes, torch.cat(boxes)).unflatten(1, (-1, 4))


def _length(values: Any) -> Any:
    return values.shape[0] if isinstance(values, Tensor) else len(values)


def _topk_min(values: Tensor, count: int, axis: int) -> Any:
    return torch.sym_min(count, values.shape[axis])
