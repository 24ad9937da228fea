"""The table of tasks. Needs no torch."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from fastvit.errors import UserError, unknown_name

if TYPE_CHECKING:
    from fastvit.model.task_model import TaskModel

TaskName = Literal["classification", "detection", "segmentation", "hand_mesh"]


@dataclass(frozen=True)
class TaskKind:
    """A task.

    Attributes:
        name: in files, recipes and on the command line.
        model: its TaskModel, as module:class; imported when it is used.
        options: the frozen dataclass of what its network is built from, as module:class; None where there is none.
        headline: the metric by which the best weights of a run are chosen.
        label: what it is called.
        lower_is_better: whether it is an error.
        own_options: options of `fastvit predict` and `fastvit eval` that apply to it, but not to every task.
    """

    name: TaskName
    model: str
    options: str | None
    headline: str
    label: str
    lower_is_better: bool = False
    own_options: tuple[str, ...] = ()

    def model_class(self) -> type[TaskModel]:
        """The class of its models."""
        found: type[TaskModel] = _imported(self.model)
        return found

    def make_options(self, values: Mapping[str, Any] | None) -> Any:
        """Its options from plain values; what is not there gets its default.

        Raises:
            UserError: a name is unknown, or a value makes no sense.
        """
        if self.options is None:
            return None
        try:
            return _imported(self.options)(**(values or {}))
        except TypeError as error:
            raise UserError(f"the description of the {self.name} network does not fit: {error}") from error


TASKS: dict[str, TaskKind] = {
    kind.name: kind
    for kind in (
        TaskKind(
            "classification",
            "fastvit.model.classifier:FastViT",
            None,
            "top1",
            "top-1",
            own_options=("k", "batch_size", "crop_pct", "real_labels"),
        ),
        TaskKind(
            "detection",
            "fastvit.tasks.detection.model:Detector",
            "fastvit.tasks.detection.options:DetectorConfig",
            "box_ap",
            "box AP",
            own_options=("score",),
        ),
        TaskKind(
            "segmentation",
            "fastvit.tasks.segmentation.model:Segmenter",
            "fastvit.tasks.segmentation.options:SegmenterConfig",
            "miou",
            "mIoU",
        ),
        TaskKind(
            "hand_mesh",
            "fastvit.tasks.hand_mesh.model:HandRegressor",
            "fastvit.tasks.hand_mesh.options:HandRegressorConfig",
            "pa_mpjpe",
            "PA-MPJPE",
            lower_is_better=True,
            own_options=("mesh",),
        ),
    )
}


def find_task(name: str) -> TaskKind:
    """A row of the table.

    Raises:
        UserError: there is no such task; a newer version may have it.
    """
    if name not in TASKS:
        raise unknown_name("task", name, TASKS)
    return TASKS[name]


def _imported(path: str) -> Any:
    module, _, name = path.partition(":")
    return getattr(importlib.import_module(module), name)
