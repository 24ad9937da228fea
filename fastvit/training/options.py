"""A training run as typed data: the fields of recipe files and the options of `fastvit train`. Needs no torch."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from fastvit.errors import UserError
from fastvit.tasks.table import DEFAULT_TASK, find_task


@dataclass
class ModelOptions:
    """Which network.

    Attributes:
        name: a variant, or a variant with the tag of released weights.
        pretrained: start from the default released weights.
        weights: start from these weights instead: a file, a directory or a Hub id.
        drop_path: stochastic depth of the last block.
        layer_scale_init: initial layer scale; None for the variant's own (1e-5 or 1e-6).
        freeze: train only what stands on the backbone.
        train_form: how the network is computed in training: "plain" branch by branch, "collapsed" with the norms of
            each block as one sum, or "auto", the one that is known to be faster on the device. The network is the same.
        size: side of the square input in pixels, of a classifier; the other tasks have theirs among their own options.
        mean: subtracted from pixels in [0, 1], a value a channel; None for the weights' or variant's own.
        std: then divided by, a value a channel; None likewise.
        crop_pct: centre crop of the evaluation; None likewise.
    """

    name: str = "fastvit_t8"
    pretrained: bool = False
    weights: str | None = None
    drop_path: float = 0.0
    layer_scale_init: float | None = None
    freeze: bool = False
    train_form: Literal["plain", "collapsed", "auto"] = "auto"
    size: int = 256
    mean: tuple[float, float, float] | None = None
    std: tuple[float, float, float] | None = None
    crop_pct: float | None = None


@dataclass
class OptimOptions:
    """AdamW with linear warm-up, decay and cool-down, stepped every batch.

    Attributes:
        lr: peak learning rate.
        schedule: the way from lr to min_lr: "cosine"; "poly", (1 - progress) ** power; or "step", a tenth after each of
            `milestones`, at which min_lr does not count.
        milestones: epochs, of "step".
        power: of "poly".
        min_lr: at the end of the decay and all through the cool-down.
        warmup_lr: at the first step.
        warmup_epochs: length of the warm-up; fractions are fine.
        cooldown_epochs: trained at min_lr after `epochs`, as the official scheduler does.
        weight_decay: not for norms, biases and layer scales.
        weight_decay_end: of the last step, reached along a cosine; None keeps it constant.
        decay_layer_scales: decay layer scales too, as the official code does (it skips what has one dimension, and
            layer scales have three).
        layer_decay: the learning rate of each block is this times that of the block after it (arXiv 2003.10555); 1 for
            none.
        betas: of Adam.
        clip: largest norm of the gradient; None for no clipping.
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
    clip: float | None = None


@dataclass
class EmaOptions:
    """Exponential moving average of weights and norm statistics; it is what gets evaluated and saved.

    Attributes:
        decay: 0 switches it off.
        warmup: let the decay grow as (1 + step) / (10 + step) until it reaches `decay`, for short runs.
        recalibrate: training batches, of one device and at most an epoch, on which norm statistics are measured anew
            for the averaged weights when training has ended, saved as recalibrated.safetensors; 0 for none.
    """

    decay: float = 0.9995
    warmup: bool = True
    recalibrate: int = 0


@dataclass
class Recipe:
    """A whole run.

    Attributes:
        task: what is learnt: a name in the table of tasks.
        data: a folder in the task's layout, or a named source: docs/data.md lists them; "sample" is embedded.
        val_fraction: share of the training images to hold out, of every class alike; for data without a held-out part.
        damaged_limit: training images that may be unreadable before the run ends.
        allow_damaged: leave unreadable validation images out, with a warning, instead of ending the run.
        out: folder of the run.
        overwrite: replace a run that is in that folder already.
        resume: go on with the run in this folder, by its own recipe.
        model: which network.
        epochs: passes over the training images, without the cool-down.
        batch_size: images a step and device.
        accumulate: steps whose gradients are added up before the optimizer's.
        workers: processes that decode images; None takes one a core but one.
        optim: optimizer and schedule.
        ema: moving average.
        precision: of the arithmetic, in Lightning's words; 16-mixed scales the loss.
        compile: run the network through torch.compile.
        device: where to run.
        devices: how many of them in each machine.
        nodes: machines; torchrun and SLURM say it themselves.
        norms: "trained" takes the statistics of each device's batch, "synchronised" those of all devices' together;
            "frozen" leaves the backbone's batch norms as they were loaded, statistics and parameters, for batches of
            few images.
        channels_last: memory format of the convolutions.
        checkpoint_every: optimizer steps after which last.ckpt is written inside an epoch too; 0 for epochs only.
        wandb: project at Weights & Biases to log to as well, if wandb is installed.
        seed: of everything random.
        sections: the sections of the task, `TaskSpec.sections`, by name; those that are missing get their defaults. In
            files and on the command line they stand beside the other fields.
    """

    task: str = DEFAULT_TASK
    data: str = "sample"
    val_fraction: float = 0.0
    damaged_limit: int = 100
    allow_damaged: bool = False
    out: Path = Path("runs/train")
    overwrite: bool = False
    resume: Path | None = None
    model: ModelOptions = field(default_factory=ModelOptions)
    epochs: int = 300
    batch_size: int = 128
    accumulate: int = 1
    workers: int | None = None
    optim: OptimOptions = field(default_factory=OptimOptions)
    ema: EmaOptions = field(default_factory=EmaOptions)
    precision: Literal["32-true", "bf16-mixed", "16-mixed"] = "32-true"
    compile: bool = False
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    devices: int = 1
    nodes: int = 1
    norms: Literal["trained", "synchronised", "frozen"] = "trained"
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
        _at_least(
            1,
            {
                "epochs": self.epochs,
                "model.size": self.model.size,
                "accumulate": self.accumulate,
                "devices": self.devices,
                "nodes": self.nodes,
            },
        )
        _at_least(
            0,
            {
                "seed": self.seed,
                "workers": self.workers or 0,
                "checkpoint_every": self.checkpoint_every,
                "damaged_limit": self.damaged_limit,
                "optim.cooldown_epochs": self.optim.cooldown_epochs,
                "optim.warmup_epochs": self.optim.warmup_epochs,
                "ema.recalibrate": self.ema.recalibrate,
            },
        )
        if self.batch_size < 2:
            raise UserError("batch_size must be at least 2: batch norm needs more than one image")
        if self.optim.lr <= 0:
            raise UserError(f"optim.lr must be above 0, got {self.optim.lr}")
        if not 0 < self.optim.layer_decay <= 1:
            raise UserError(f"optim.layer_decay must be above 0 and at most 1, got {self.optim.layer_decay}")
        if self.model.crop_pct is not None and not 0 < self.model.crop_pct <= 1:
            raise UserError(f"model.crop_pct must be above 0 and at most 1, got {self.model.crop_pct}")
        if not 0 <= self.val_fraction < 1:
            raise UserError(f"val_fraction must be at least 0 and below 1, got {self.val_fraction}")
        if not 0 <= self.ema.decay < 1:
            raise UserError(f"ema.decay must be at least 0 and below 1, got {self.ema.decay}")
        if self.optim.warmup_epochs >= self.epochs:
            raise UserError(
                f"optim.warmup_epochs ({self.optim.warmup_epochs}) must be less than epochs ({self.epochs}), "
                "or the learning rate never comes down"
            )
        self._check_task()

    def _check_task(self) -> None:
        """Check what the task says of the fields."""
        spec = find_task(self.task)
        for name, advice in spec.unused_fields.items():
            section, _, own = name.rpartition(".")
            holder: Any = getattr(self, section) if section else self
            if getattr(holder, own) != type(holder).__dataclass_fields__[own].default:
                raise UserError(f"{name} does not apply to {self.task}: {advice}")
        spec.check(self)

    if not TYPE_CHECKING:  # or every misspelt field would be one

        def __getattr__(self, name: str) -> Any:
            """A section by its name, such as recipe.mixing."""
            if name in (sections := self.__dict__.get("sections", {})):
                return sections[name]
            raise AttributeError(f"a recipe for {self.__dict__.get('task')} has no field {name}")

    @property
    def loading(self) -> dict[str, Any]:
        """Keyword arguments of `fastvit.data.module.RunData`."""
        return {"workers": self.workers, "seed": self.seed, "allow_damaged": self.allow_damaged}

    def to_dict(self) -> dict[str, Any]:
        """Return all fields as plain values, the sections beside the others, as a recipe file has them."""
        plain = asdict(self)
        sections = plain.pop("sections")
        return {**plain, **sections}


def _at_least(least: int, values: dict[str, float]) -> None:
    for name, value in values.items():
        if value < least:
            raise UserError(f"{name} must be at least {least}, got {value}")
