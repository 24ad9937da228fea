"""A training run as typed data: what recipe files hold and `fastvit train` takes. Needs no torch."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from fastvit.data.augmentation import Augmentation
from fastvit.errors import UserError
from fastvit.tasks.classification.options import Mixing

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser

RECIPES = Path(__file__).parent.parent / "recipes"


@dataclass
class ModelOptions:
    """Which network.

    Attributes:
        name: a variant, or a variant with the tag of released weights.
        pretrained: start from the default released weights.
        weights: start from these weights instead: a file, a directory or a Hub id.
        drop_path: stochastic depth of the last block.
        layer_scale_init: initial layer scale; None for the variant's own (1e-5 or 1e-6).
        size: side of the square input in pixels.
        mean: subtracted from pixels in [0, 1], a value a channel; None for the weights' or variant's own.
        std: then divided by, a value a channel; None likewise.
        crop_pct: centre crop of the evaluation; None likewise.
    """

    name: str = "fastvit_t8"
    pretrained: bool = False
    weights: str | None = None
    drop_path: float = 0.0
    layer_scale_init: float | None = None
    size: int = 256
    mean: tuple[float, float, float] | None = None
    std: tuple[float, float, float] | None = None
    crop_pct: float | None = None


@dataclass
class OptimOptions:
    """AdamW with linear warm-up and cosine decay, stepped every batch.

    Attributes:
        lr: peak learning rate.
        min_lr: at the end.
        warmup_lr: at the first step.
        warmup_epochs: length of the warm-up; fractions are fine.
        weight_decay: not for norms, biases and layer scales.
        betas: of Adam.
        clip: largest norm of the gradient; None for no clipping.
    """

    lr: float = 1e-3
    min_lr: float = 1e-5
    warmup_lr: float = 1e-6
    warmup_epochs: float = 5.0
    weight_decay: float = 0.05
    betas: tuple[float, float] = (0.9, 0.999)
    clip: float | None = None


@dataclass
class EmaOptions:
    """Exponential moving average of weights and norm statistics; it is what gets evaluated and saved.

    Attributes:
        decay: 0 switches it off.
        warmup: let the decay grow as (1 + step) / (10 + step) until it reaches `decay`, for short runs.
    """

    decay: float = 0.9995
    warmup: bool = True


@dataclass
class Recipe:
    """A whole run.

    Attributes:
        data: the embedded "sample", a folder of images or idx files, or torch/NAME.
        out: folder of the run.
        overwrite: replace a run that is in that folder already.
        model: which network.
        epochs: passes over the training images.
        batch_size: images a step and device.
        workers: processes that decode images; None takes one a core but one.
        augmentation: of single images.
        mixing: of batches.
        optim: optimizer and schedule.
        ema: moving average.
        precision: of the arithmetic, in Lightning's words.
        device: where to run.
        devices: how many of them.
        channels_last: memory format of the convolutions.
        seed: of everything random.
    """

    data: str = "sample"
    out: Path = Path("runs/train")
    overwrite: bool = False
    model: ModelOptions = field(default_factory=ModelOptions)
    epochs: int = 300
    batch_size: int = 128
    workers: int | None = None
    augmentation: Augmentation = field(default_factory=Augmentation)
    mixing: Mixing = field(default_factory=Mixing)
    optim: OptimOptions = field(default_factory=OptimOptions)
    ema: EmaOptions = field(default_factory=EmaOptions)
    precision: Literal["32-true", "bf16-mixed", "16-mixed"] = "32-true"
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    devices: int = 1
    channels_last: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        for name, value in {"epochs": self.epochs, "model.size": self.model.size}.items():
            if value < 1:
                raise UserError(f"{name} must be at least 1, got {value}")
        if self.batch_size < 2:
            raise UserError("batch_size must be at least 2: batch norm needs more than one image")
        if self.batch_size % 2 and (self.mixing.mixup or self.mixing.cutmix):
            raise UserError(f"mixing pairs the images of a batch: batch_size must be even, got {self.batch_size}")
        if self.optim.lr <= 0:
            raise UserError(f"optim.lr must be above 0, got {self.optim.lr}")
        if self.model.crop_pct is not None and not 0 < self.model.crop_pct <= 1:
            raise UserError(f"model.crop_pct must be above 0 and at most 1, got {self.model.crop_pct}")
        if self.optim.warmup_epochs >= self.epochs:
            raise UserError(
                f"optim.warmup_epochs ({self.optim.warmup_epochs}) must be less than epochs ({self.epochs}), "
                "or the learning rate never comes down"
            )


def recipe_path(name: str) -> Path:
    """The file of a shipped recipe, or a path as it is.

    Raises:
        UserError: there is no such recipe and no such file.
    """
    path = Path(name)
    if path.is_file():
        return path
    shipped = RECIPES / f"{name}.yaml"
    if shipped.is_file():
        return shipped
    raise UserError(f"there is no recipe {name}; there are {', '.join(recipe_names())}, or give a .yaml file")


def recipe_names() -> list[str]:
    """Names of the shipped recipes."""
    return sorted(path.stem for path in RECIPES.glob("*.yaml"))


def recipe_parser(prog: str = "fastvit train", description: str | None = None) -> ArgumentParser:
    """A parser whose options are the fields of Recipe, with --recipe for a shipped recipe or a file."""
    from jsonargparse import ActionConfigFile, ArgumentParser

    class RecipeFile(ActionConfigFile):
        """--recipe takes the name of a shipped recipe as well as a file."""

        def __call__(self, parser: Any, cfg: Any, values: Any, option_string: str | None = None) -> None:
            path = recipe_path(values)
            try:
                super().__call__(parser, cfg, path, option_string)
            except Exception as error:  # jsonargparse and YAML have no common base but this
                raise UserError(f"{path}: {' '.join(str(error).split())}") from error

    parser = ArgumentParser(prog=prog, description=description, exit_on_error=False)
    parser.add_argument(
        "--recipe", action=RecipeFile, metavar="NAME|FILE", help=f"start from a recipe: {', '.join(recipe_names())}"
    )
    parser.add_class_arguments(Recipe)
    return parser


def load_recipe(name: str, *options: str) -> Recipe:
    """A recipe by name or file, with command-line style options such as "--epochs=3" on top.

    Raises:
        UserError: no such recipe, or a field is unknown or ill-typed; the message names it.
    """
    return parse_recipe(recipe_parser(), ["--recipe", name, *options])


def parse_recipe(parser: ArgumentParser, arguments: list[str]) -> Recipe:
    """The recipe that command-line arguments describe.

    Raises:
        UserError: a field is unknown or ill-typed; the message names it.
    """
    import argparse

    # A recipe replaces what stands before it on the line, so it goes first: options override it wherever they stand.
    finder = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    finder.add_argument("--recipe", action="append", default=[])
    try:
        found, rest = finder.parse_known_args(arguments)
        first = [f"--recipe={name}" for name in found.recipe]
        values = parser.instantiate(parser.parse_args(first + rest)).as_dict()
    except argparse.ArgumentError as error:
        raise UserError(f"{' '.join(str(error).split())} (see fastvit train --help)") from error
    return Recipe(**{field.name: values[field.name] for field in fields(Recipe)})
