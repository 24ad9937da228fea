"""Replacements that make torchvision's detectors traceable by torch.export and exportable to ONNX."""

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

op: Any = opset18  # its own types do not cover the conversion of numbers and lists
# Up to this number of boxes, torchvision's NMS on the CPU offsets the boxes of each group, instead of a loop.
_MOVED_APART = 1000


@contextmanager
def traceable() -> Iterator[None]:
    """Replace the functions of torchvision that torch.export cannot trace by equivalent ones for any number of boxes.

    The replacement affects the process, so other threads that trace wait; otherwise a second one would treat the
    replacements as torchvision's functions. Threads that run a detector in the meantime get the same outputs.
    """
    with ALONE, ExitStack() as replaced:
        for owner, name, function in (
            (box_ops, "batched_nms", _batched_nms),  # it branches on the number of boxes
            (BoxCoder, "decode", _decode),  # it reshapes only if there are boxes
            (poolers, "len", _length),  # the builtins have to return a plain number
            (det_utils, "_topk_min", _topk_min),  # likewise
        ):
            replaced.enter_context(_replaced(owner, name, function))
        yield


@contextmanager
def _replaced(owner: object, name: str, function: Callable[..., Any]) -> Iterator[None]:
    """Set an attribute of a module or class, even one that shadows a builtin, and restore it afterwards."""
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
    """Return the ONNX translation of the custom operator of `traceable`, for torch.onnx.export."""
    return {torch.ops.fastvit.batched_nms.default: _batched_nms_to_onnx}


_torchvision_batched_nms = box_ops.batched_nms


@torch.library.custom_op("fastvit::batched_nms", mutates_args=())
def _batched_nms(boxes: Tensor, scores: Tensor, idxs: Tensor, iou_threshold: float) -> Tensor:
    """Run torchvision's batched NMS as one node of a traced graph."""
    return _torchvision_batched_nms(boxes, scores, idxs, iou_threshold)


@_batched_nms.register_fake
def _(boxes: Tensor, scores: Tensor, idxs: Tensor, iou_threshold: float) -> Tensor:
    return idxs.new_empty(torch.library.get_ctx().new_dynamic_size())


def _batched_nms_to_onnx(boxes: Any, scores: Any, idxs: Any, iou_threshold: float) -> Any:
    """Return the indices of the boxes that NMS keeps, by descending score, with (N,) scores >= 0 and (N,) groups >= 0.

    The boxes of a group are the candidates of a class of ONNX's operator; all others get a score below its threshold.
    For few boxes torchvision offsets the groups instead; they are offset here too, only for the same rounding of
    coordinates.
    """
    count = op.Shape(scores)
    # With a zero appended, because there may be no boxes.
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
    _, order = op.TopK(kept_scores, op.Shape(indices))  # equal scores keep their order, as in torch
    return order


def _decode(coder: BoxCoder, rel_codes: Tensor, boxes: list[Tensor]) -> Tensor:
    return coder.decode_single(rel_codes, torch.cat(boxes)).unflatten(1, (-1, 4))


def _length(values: Any) -> Any:
    return values.shape[0] if isinstance(values, Tensor) else len(values)


def _topk_min(values: Tensor, count: int, axis: int) -> Any:
    return torch.sym_min(count, values.shape[axis])
