"""What every whole model is, whatever its task: a network that says what it is and what its images need."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, ClassVar

from torch import Tensor, nn

from fastvit.errors import UserError
from fastvit.model.backbone import Backbone
from fastvit.model.config import FastViTConfig
from fastvit.model.preprocessing import Preprocessing


class TaskModel(nn.Module):
    """A network on a FastViT backbone that can be saved, loaded, exported and used without being told more.

    Attributes:
        task: a key of `fastvit.tasks.table.TASKS`.
        variant: name of the row in `fastvit.model.variants`, for files and reports.
        config: of the backbone, with the number of classes.
        classes: name of each class, or None where unknown.
        preprocessing: what images need before they come here.
        options: what else it is built from, a frozen dataclass; None where the configuration says all.
        input_names: names of the tensors that `outputs` takes: "images", of a detector also "image_size".
        output_names: names of the tensors that `outputs` returns, in order.
        data_dependent: whether the number of outputs depends on the values of the image, as of a detector.
        default_preprocessing: what images need where a network is made without being told.

    Raises:
        UserError: there are not as many class names as classes.
    """

    task: ClassVar[str]
    default_preprocessing: ClassVar[Preprocessing] = Preprocessing()
    data_dependent: ClassVar[bool] = False
    input_names: tuple[str, ...] = ("images",)
    output_names: tuple[str, ...]

    def __init__(
        self,
        config: FastViTConfig,
        variant: str = "custom",
        *,
        classes: Sequence[str] | None = None,
        preprocessing: Preprocessing | None = None,
        options: Any = None,
    ) -> None:
        super().__init__()
        self.variant, self.config, self.options = variant, config, options
        self.classes = class_names(classes, config.num_classes)
        self.preprocessing = preprocessing or self.default_preprocessing

    @property
    def num_classes(self) -> int:
        """Of the data, a background that belongs to none left out."""
        return self.config.num_classes

    @property
    def trunk(self) -> Backbone:
        """The backbone, wherever it is in the network."""
        return next(module for module in self.modules() if isinstance(module, Backbone))

    def outputs(self, images: Tensor) -> tuple[Tensor, ...]:
        """Return the raw outputs for normalized (B, C, H, W) images, in the order of `output_names`, in eval mode."""
        raise NotImplementedError(f"{type(self).__name__} does not implement outputs")

    @property
    def compiled_part(self) -> nn.Module:
        """What torch.compile compiles in training: all of the network, if its way does not depend on values."""
        return self

    @property
    def pyramid(self) -> nn.Module:
        """What gives the maps that the rest of the network stands on: (B, C, H, W) -> a list or dict of them."""
        return self.trunk

    @property
    def pyramid_strides(self) -> tuple[int, ...]:
        """Of those maps, in order."""
        return self.trunk.strides

    def traceable(self) -> AbstractContextManager[None]:
        """Return what torch.export needs around it while it traces the network."""
        return nullcontext()

    def onnx_operators(self) -> dict[Callable[..., Any], Callable[..., Any]]:
        """Return operators that torch.onnx.export does not know, each with a function that builds it of ONNX's."""
        return {}

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Trade compute for memory: see `Backbone.set_grad_checkpointing`."""
        self.trunk.set_grad_checkpointing(enable)


def class_names(classes: Sequence[str] | None, count: int) -> tuple[str, ...] | None:
    """The names, if there are as many as classes.

    Raises:
        UserError: there are not.
    """
    if classes is not None and len(classes) != count:
        raise UserError(f"{len(classes)} class names for {count} classes")
    return None if classes is None else tuple(classes)
