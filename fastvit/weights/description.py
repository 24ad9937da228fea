"""Description of a model in the metadata of a weights file or an artifact. Reading it needs no torch."""

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
# Number of bytes of the length in front of the header of a safetensors file.
_LENGTH = 8
# Name of the metadata field that contains the description, as JSON.
METADATA_KEY = "fastvit"


@dataclass(frozen=True)
class Description:
    """Description of a model: all that is needed besides its tensors; the same in checkpoints and artifacts.

    Attributes:
        variant: name of the variant, or a name given by the user.
        config: structure of the backbone.
        form: form of the tensors: train, reparameterized or fused.
        classes: names of the classes; None if they are not known.
        preprocessing: preprocessing of the images.
        metrics: measured values; shares are fractions, such as {"top1": 0.812}.
        task: name of the task.
        options: options of the task's network; None for a task without options.
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
        """Return the description of a model.

        Args:
            model: model to describe.
            metrics: measured values.
        """
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
        """Return the description as plain values for JSON, with the version of the format."""
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
        """Create a description from the values of `to_dict`.

        Args:
            data: content of the JSON.
            name: name of the file, for errors.

        Raises:
            UserError: the version of the format is not supported, or a field is missing or has the wrong type.
        """
        if not isinstance(data, Mapping):
            raise UserError(f"{name}: the description in its metadata is not a JSON object")
        if (version := data.get("format_version")) != FORMAT_VERSION:
            raise UserError(
                f"{name} has format version {version}, fastvit {__version__} reads {FORMAT_VERSION}: "
                "upgrade with pip install -U fastvit"
            )
        if missing := [key for key in ("variant", "form", "config", "preprocessing") if key not in data]:
            raise UserError(f"{name}: the description in its metadata lacks {', '.join(missing)}")
        try:
            task = find_task(str(data.get("task", DEFAULT_TASK)))
            config = FastViTConfig.from_dict(data["config"])
            classes = tuple(map(str, data["classes"])) if data.get("classes") else None
            if classes and len(classes) != config.num_classes:
                raise UserError(f"got {len(classes)} class names for {config.num_classes} classes")
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
    """Return the task of a weights file from its header; classification if the file has no description.

    Args:
        source: file, folder, or Hugging Face Hub id.

    Raises:
        UserError: the file does not exist.
    """
    path = locate(source)
    if path.suffix != ".safetensors":
        return DEFAULT_TASK
    with path.open("rb") as file:
        try:
            header = json.loads(file.read(int.from_bytes(file.read(_LENGTH), "little")))
            return str(json.loads(header["__metadata__"][METADATA_KEY])["task"])
        except (
            ValueError,
            KeyError,
            TypeError,
            OverflowError,
            MemoryError,
        ):  # reading the file will report what is wrong
            return DEFAULT_TASK
