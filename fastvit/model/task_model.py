"""Base class of the models of all tasks: a network with its variant, classes and preprocessing."""

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
    """Network on a FastViT backbone, with all that is needed to save, load, export and use it.

    Attributes:
        task: name of the task, a key of `fastvit.tasks.table.TASKS`.
        variant: name of the row in `fastvit.model.variants`, for files and reports.
        config: configuration of the backbone, with the number of classes.
        classes: name of each class; None if the names are unknown.
        preprocessing: preprocessing of the images.
        options: other options of the network, a frozen dataclass; None if the task has none.
        input_names: names of the tensors that `outputs` takes: "images", and for detectors also "image_size".
        output_names: names of the tensors that `outputs` returns, in order.
        data_dependent: whether the number of outputs depends on the values of the image, as for detectors.
        default_preprocessing: preprocessing of a network that is created without one.

    Raises:
        UserError: the number of class names differs from the number of classes.
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
        """Number of classes, without a background class."""
        return self.config.num_classes

    @property
    def trunk(self) -> Backbone:
        """Backbone of the network."""
        return next(module for module in self.modules() if isinstance(module, Backbone))

    def outputs(self, images: Tensor) -> tuple[Tensor, ...]:
        """Return the raw outputs for normalized (B, C, H, W) images, in the order of `output_names`, in eval mode.

        Raises:
            NotImplementedError: the class does not define it.
        """
        raise NotImplementedError(f"{type(self).__name__} does not implement outputs")

    @property
    def compiled_part(self) -> nn.Module:
        """Module that torch.compile compiles in training: all of the network, unless its control flow needs values."""
        return self

    @property
    def pyramid(self) -> nn.Module:
        """Module that returns the feature maps for the rest of the network: (B, C, H, W) -> a list or dict of maps."""
        return self.trunk

    @property
    def pyramid_strides(self) -> tuple[int, ...]:
        """Stride of each map of `pyramid` against the image, in order."""
        return self.trunk.strides

    def traceable(self) -> AbstractContextManager[None]:
        """Return a context in which torch.export can trace the network."""
        return nullcontext()

    def onnx_operators(self) -> dict[Callable[..., Any], Callable[..., Any]]:
        """Return operators that torch.onnx.export does not support, each with a function that builds it in ONNX."""
        return {}

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Switch gradient checkpointing of the backbone on or off; see `Backbone.set_grad_checkpointing`."""
        self.trunk.set_grad_checkpointing(enable)


def class_names(classes: Sequence[str] | None, count: int) -> tuple[str, ...] | None:
    """Return the class names as a tuple, or None.

    Args:
        classes: name of each class, or None.
        count: number of classes.

    Raises:
        UserError: the number of names differs from `count`.
    """
    if classes is not None and len(classes) != count:
        raise UserError(f"got {len(classes)} class names for {count} classes; give one name per class")
    return None if classes is None else tuple(classes)
