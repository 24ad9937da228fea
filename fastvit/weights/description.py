"""What a file of ours says of the model in it. Needs no torch to read."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from fastvit.errors import UserError
from fastvit.model.config import FastViTConfig
from fastvit.model.preprocessing import Preprocessing
from fastvit.renames import FORMS, renamed_network
from fastvit.tasks.table import DEFAULT_TASK, find_task
from fastvit.version import __version__
from fastvit.weights.location import locate

if TYPE_CHECKING:
    from fastvit.fusion import Form
    from fastvit.model.task_model import TaskModel

FORMAT_VERSION = 1
# Of the length in front of a safetensors file's header.
_LENGTH = 8
# Where formats with named metadata fields keep a description, as JSON.
METADATA_KEY = "fastvit"


@dataclass(frozen=True)
class Description:
    """Everything that building and using a model needs beside its tensors; the same in checkpoints and artifacts.

    Attributes:
        variant: name of the row it was made from, or a name of the user's.
        config: its structure.
        form: of the tensors.
        classes: names, or None where unknown.
        preprocessing: what images need.
        metrics: measured values, fractions where they are shares, such as {"top1": 0.812}.
        task: what the outputs mean.
        options: what else its network is built from, of a task that has such options; else None.
    """

    variant: str
    config: FastViTConfig
    form: Form
    classes: tuple[str, ...] | None
    preprocessing: Preprocessing
    metrics: dict[str, float] = field(default_factory=dict)
    task: str = DEFAULT_TASK
    options: Any = None

    @classmethod
    def of(cls, model: TaskModel, metrics: Mapping[str, float] | None = None) -> Description:
        """The description of a model."""
        from fastvit.fusion import form

        return cls(
            variant=model.variant,
            config=model.config,
            form=form(model),
            classes=model.classes,
            preprocessing=model.preprocessing,
            metrics=dict(metrics or {}),
            task=find_task(model.task).name,
            options=model.options,
        )

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON, with the format's version."""
        return {
            "format_version": FORMAT_VERSION,
            "fastvit_version": __version__,
            "task": self.task,
            "variant": self.variant,
            "form": self.form,
            "config": self.config.to_dict(),
            "classes": list(self.classes) if self.classes else None,
            "preprocessing": self.preprocessing.to_dict(),
            "metrics": self.metrics,
            "options": None if self.options is None else asdict(self.options),
        }

    @classmethod
    def from_dict(cls, data: object, name: str) -> Description:
        """The inverse of `to_dict`; `name` is the file, for errors.

        Raises:
            UserError: the format is newer than this package, or a field is missing or of the wrong kind.
        """
        if not isinstance(data, Mapping):
            raise UserError(f"{name}: the description in its metadata is no JSON object")
        if (version := data.get("format_version")) != FORMAT_VERSION:
            raise UserError(
                f"{name} has format version {version}, this fastvit {__version__} reads {FORMAT_VERSION}: "
                "upgrade with pip install -U fastvit"
            )
        if missing := [key for key in ("variant", "form", "config", "preprocessing") if key not in data]:
            raise UserError(f"{name}: the description in its metadata has no {', '.join(missing)}")
        try:
            task = find_task(str(data.get("task", DEFAULT_TASK)))
            config = FastViTConfig.from_dict(data["config"])
            classes = tuple(map(str, data["classes"])) if data.get("classes") else None
            if classes and len(classes) != config.num_classes:
                raise UserError(f"{len(classes)} class names for {config.num_classes} classes")
            return cls(
                variant=str(data["variant"]),
                config=config,
                form=cast(Any, FORMS.get(data["form"], data["form"])),
                classes=classes,
                preprocessing=Preprocessing.from_dict(data["preprocessing"]),
                metrics=dict(data.get("metrics") or {}),
                task=task.name,
                options=task.make_options(renamed_network(task.name, data.get("options"))),
            )
        except (UserError, TypeError) as error:
            raise UserError(f"{name}: {error}") from error


def read_task(source: str | Path) -> str:
    """What a weights file is for, from its header alone: what does not say so is a classifier.

    Raises:
        UserError: there is no such file.
    """
    path = locate(source)
    if path.suffix != ".safetensors":
        return DEFAULT_TASK
    with path.open("rb") as file:
        try:
            header = json.loads(file.read(int.from_bytes(file.read(_LENGTH), "little")))
            return str(json.loads(header["__metadata__"][METADATA_KEY])["task"])
        except (ValueError, KeyError, TypeError, OverflowError, MemoryError):  # reading it will say what is wrong
            return DEFAULT_TASK
