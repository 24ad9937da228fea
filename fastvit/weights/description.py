"""What a file of ours says of the model in it. Needs no torch to read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from fastvit.errors import UserError
from fastvit.model.config import FastViTConfig
from fastvit.model.preprocessing import Preprocessing
from fastvit.version import __version__

if TYPE_CHECKING:
    from fastvit.fusion import Form
    from fastvit.model.classifier import FastViT

FORMAT_VERSION = 1
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
    """

    variant: str
    config: FastViTConfig
    form: Form
    classes: tuple[str, ...] | None
    preprocessing: Preprocessing
    metrics: dict[str, float] = field(default_factory=dict)
    task: Literal["classification"] = "classification"

    @classmethod
    def of(cls, model: FastViT, metrics: Mapping[str, float] | None = None) -> Description:
        """The description of a model."""
        from fastvit.fusion import form

        return cls(model.variant, model.config, form(model), model.classes, model.preprocessing, dict(metrics or {}))

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
            config = FastViTConfig.from_dict(data["config"])
            classes = tuple(map(str, data["classes"])) if data.get("classes") else None
            if classes and len(classes) != config.num_classes:
                raise UserError(f"{len(classes)} class names for {config.num_classes} classes")
            return cls(
                variant=str(data["variant"]),
                config=config,
                form=data["form"],
                classes=classes,
                preprocessing=Preprocessing.from_dict(data["preprocessing"]),
                metrics=dict(data.get("metrics") or {}),
                task=data.get("task", "classification"),
            )
        except (UserError, TypeError) as error:
            raise UserError(f"{name}: {error}") from error
