"""Dataclasses of recipes: the fields of recipe files and the options of `fastvit train`. Needs no torch."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from fastvit.errors import UserError
from fastvit.ranges import COUNT, NOT_NEGATIVE, POSITIVE, RATE, SHARE, SIDE, check_ranges
from fastvit.tasks.table import DEFAULT_TASK, find_task


@dataclass
class ModelOptions:
    """Network to train.

    Attributes:
        name: name of a variant, alone or with the tag of released weights.
        pretrained: start from the default released weights of the variant.
        weights: start from these weights instead: a file, a folder or a Hugging Face Hub id.
        drop_path: stochastic depth rate (drop path) of the last block.
        layer_scale_init: initial value of the layer scales; None for that of the variant (1e-5 or 1e-6).
        freeze: freeze the backbone and train only the head.
        collapse_branches: computation of the reparameterizable branches in training: "never" runs each branch and its
            batch norm, "always" computes each block as one sum, "auto" uses the faster of the two on the device. The
            network and its outputs are the same.
        size: side of a classifier's square input, in pixels; other tasks have a size in their own section.
        mean: mean of each channel, subtracted from pixels in [0, 1]; None for that of the weights or the variant.
        std: standard deviation of each channel, by which pixels are divided; None for that of the weights or the
            variant.
        crop_pct: center crop in evaluation, as a share of the resized image; None for that of the weights or the
            variant.
    """

    name: str = "fastvit_t8"
    pretrained: bool = False
    weights: str | None = None
    drop_path: float = 0.0
    layer_scale_init: float | None = None
    freeze: bool = False
    collapse_branches: Literal["never", "always", "auto"] = "auto"
    size: int = 256
    mean: tuple[float, float, float] | None = None
    std: tuple[float, float, float] | None = None
    crop_pct: float | None = None


@dataclass
class OptimOptions:
    """AdamW and its learning rate schedule, which changes the rate at every step.

    Attributes:
        lr: peak learning rate.
        schedule: learning rate schedule: "cosine" or "poly", (1 - progress) ** power, from lr to min_lr; or "step",
            which divides the learning rate by 10 after each of `milestones` and does not use min_lr.
        milestones: epochs after which "step" lowers the learning rate.
        power: exponent of "poly".
        min_lr: learning rate at the end of the decay and during the cool-down.
        warmup_lr: learning rate of the first step.
        warmup_epochs: epochs of linear warm-up; may be a fraction.
        cooldown_epochs: epochs at min_lr after `epochs`, as in the official scheduler.
        weight_decay: weight decay; norms, biases and layer scales have none.
        weight_decay_end: weight decay of the last step, reached along a cosine; None keeps it constant.
        decay_layer_scales: apply weight decay to layer scales too, as the official code does (it skips parameters with
            one dimension, and layer scales have three).
        layer_decay: layer-wise learning rate decay: the learning rate of each block is this times that of the block
            after it (arXiv 2003.10555); 1 for none.
        betas: beta1 and beta2 of AdamW.
        clip_grad: gradient clipping: maximum norm of the gradient; None for no clipping.
    """

    lr: float = 1e-3
    schedule: Literal["cosine", "poly", "step"] = "cosine"
    milestones: tuple[int, ...] = ()
    power: float = 0.9
    min_lr: float = 1e-5
    warmup_lr: float = 1e-6
    warmup_epochs: float = 5.0
    cooldown_epochs: int = 0
    weight_decay: float = 0.05
    weight_decay_end: float | None = None
    decay_layer_scales: bool = False
    layer_decay: float = 1.0
    betas: tuple[float, float] = (0.9, 0.999)
    clip_grad: float | None = None


@dataclass
class EmaOptions:
    """Exponential moving average (EMA) of the weights, and of batch norm statistics; it is evaluated and saved.

    Attributes:
        decay: EMA decay per step; 0 switches the average off.
        warmup: let the EMA decay grow as (1 + step) / (10 + step) until it reaches `decay`, for short runs.
        recalibrate: number of training batches, of one device and at most an epoch, on which batch norm statistics are
            measured again for the averaged weights after training, saved as recalibrated.safetensors; 0 for none.
    """

    decay: float = 0.9995
    warmup: bool = True
    recalibrate: int = 0


# Ranges of the fields of all tasks.
_RANGES = {
    "epochs": COUNT,
    "accumulate_grad_batches": COUNT,
    "devices": COUNT,
    "num_nodes": COUNT,
    "seed": NOT_NEGATIVE,
    "num_workers": NOT_NEGATIVE,
    "checkpoint_every": NOT_NEGATIVE,
    "max_unreadable": NOT_NEGATIVE,
    "val_fraction": RATE,
    "model.size": SIDE,
    "model.drop_path": RATE,
    "model.layer_scale_init": NOT_NEGATIVE,
    "model.std": POSITIVE,
    "model.crop_pct": SHARE,
    "optim.lr": POSITIVE,
    "optim.milestones": NOT_NEGATIVE,
    "optim.power": NOT_NEGATIVE,
    "optim.min_lr": NOT_NEGATIVE,
    "optim.warmup_lr": NOT_NEGATIVE,
    "optim.warmup_epochs": NOT_NEGATIVE,
    "optim.cooldown_epochs": NOT_NEGATIVE,
    "optim.weight_decay": NOT_NEGATIVE,
    "optim.weight_decay_end": NOT_NEGATIVE,
    "optim.layer_decay": SHARE,
    "optim.betas": RATE,
    "optim.clip_grad": POSITIVE,
    "ema.decay": RATE,
    "ema.recalibrate": NOT_NEGATIVE,
}


@dataclass
class Recipe:
    """Settings of a training run.

    Attributes:
        task: task to train.
        data: folder in the task's layout, or a named source of docs/data.md, such as "sample".
        val_fraction: share of the training images of each class to use for validation instead, for data without
            validation images.
        max_unreadable: largest number of unreadable training images (corrupt images); unreadable images are replaced by
            the next readable one, and more than this number end the run with an error.
        skip_unreadable: skip unreadable validation images (corrupt images) with a warning, instead of ending the run.
        out: folder of the run.
        overwrite: replace the run in the folder.
        resume: resume the run in this folder, with its own recipe.
        model: network to train.
        epochs: number of passes over the training images, without the cool-down.
        batch_size: images per batch and device.
        accumulate_grad_batches: gradient accumulation: number of batches whose gradients are added up for one optimizer
            step.
        num_workers: number of processes that decode images; None for the number of CPU cores minus one.
        optim: optimizer and learning rate schedule.
        ema: exponential moving average (EMA) of the weights.
        precision: numeric precision, in Lightning's notation: mixed precision is bf16-mixed, or 16-mixed with loss
            scaling.
        compile: compile the network with torch.compile.
        device: device to train on.
        devices: number of devices in each machine.
        num_nodes: number of machines; torchrun and SLURM set it.
        batchnorm: batch norm in training: "train" uses the statistics of each device's batch, "sync" those of all
            devices together (sync batch norm, synchronized batch norm, SyncBatchNorm), "frozen" keeps the statistics
            and parameters of the backbone as they were loaded, for small batches.
        channels_last: use the channels-last memory format for convolutions.
        checkpoint_every: number of optimizer steps between checkpoints (last.ckpt) inside an epoch; 0 for checkpoints
            after epochs only.
        wandb: Weights & Biases project to log to as well; needs wandb.
        seed: random seed.
        sections: sections of the task, `TaskSpec.sections`, by name; missing sections get their defaults. In files and
            on the command line they are on the same level as the other fields.
    """

    task: str = DEFAULT_TASK
    data: str = "sample"
    val_fraction: float = 0.0
    max_unreadable: int = 100
    skip_unreadable: bool = False
    out: Path = Path("runs/train")
    overwrite: bool = False
    resume: Path | None = None
    model: ModelOptions = field(default_factory=ModelOptions)
    epochs: int = 300
    batch_size: int = 128
    accumulate_grad_batches: int = 1
    num_workers: int | None = None
    optim: OptimOptions = field(default_factory=OptimOptions)
    ema: EmaOptions = field(default_factory=EmaOptions)
    precision: Literal["32-true", "bf16-mixed", "16-mixed"] = "32-true"
    compile: bool = False
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    devices: int = 1
    num_nodes: int = 1
    batchnorm: Literal["train", "sync", "frozen"] = "train"
    channels_last: bool = False
    checkpoint_every: int = 1000
    wandb: str | None = None
    seed: int = 0
    sections: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        kinds = find_task(self.task).sections
        if unknown := [name for name in self.sections if name not in kinds]:
            raise UserError(
                f"a recipe for {self.task} has no section {unknown[0]}; it has {', '.join(kinds) or 'none'}"
            )
        self.sections = {name: kind() for name, kind in kinds.items()} | self.sections
        check_ranges(self, _RANGES)
        if self.batch_size < 2:
            raise UserError("batch_size must be at least 2: batch norm needs more than one image")
        if self.optim.warmup_epochs >= self.epochs:
            raise UserError(
                f"optim.warmup_epochs ({self.optim.warmup_epochs}) must be less than epochs ({self.epochs}), "
                "or the learning rate never decays: set --optim.warmup-epochs or more --epochs"
            )
        self._check_task()

    def _check_task(self) -> None:
        """Check the fields of the recipe for its task."""
        spec = find_task(self.task)
        for name, advice in spec.unused_fields.items():
            section, _, own = name.rpartition(".")
            holder: Any = getattr(self, section) if section else self
            if getattr(holder, own) != type(holder).__dataclass_fields__[own].default:
                raise UserError(f"{name} does not apply to {self.task}: {advice}")
        spec.check(self)

    if not TYPE_CHECKING:  # or mypy would accept misspelled fields

        def __getattr__(self, name: str) -> Any:
            """Return a section by its name, such as recipe.mixup."""
            if name in (sections := self.__dict__.get("sections", {})):
                return sections[name]
            raise AttributeError(f"a recipe for {self.__dict__.get('task')} has no field {name}")

    @property
    def loading(self) -> dict[str, Any]:
        """Keyword arguments for `fastvit.data.module.RunData`."""
        return {"num_workers": self.num_workers, "seed": self.seed, "skip_unreadable": self.skip_unreadable}

    def to_dict(self) -> dict[str, Any]:
        """Return all fields as plain values, in the structure of a recipe file."""
        plain = asdict(self)
        sections = plain.pop("sections")
        return {**plain, **sections}
