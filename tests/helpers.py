"""Small things that several tests need."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from fastvit.model.classifier import FastViT
from fastvit.model.config import FastViTConfig
from fastvit.model.layers import LayerScale

Model = TypeVar("Model", bound=nn.Module)
REFERENCE = Path(__file__).parent / "reference"


def randomize(model: Model, seed: int = 0) -> Model:
    """Random norm statistics, affine parameters and layer scales: at their initial values a wrong fusion hides."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, (_BatchNorm, nn.LayerNorm)):
                module.weight.uniform_(0.5, 1.5, generator=generator)
                module.bias.uniform_(-0.2, 0.2, generator=generator)
            if isinstance(module, _BatchNorm):
                module.running_mean.uniform_(-0.2, 0.2, generator=generator)
                module.running_var.uniform_(0.5, 1.5, generator=generator)
            if isinstance(module, LayerScale):
                module.gamma.uniform_(0.05, 0.35, generator=generator)
    return model


def small(config: FastViTConfig, depth: int = 2) -> FastViTConfig:
    """The same kinds of blocks, at most `depth` a stage, and a quarter of the width of the giants."""
    divisor = 4 if config.stages[-1].width > 1000 else 1
    stages = tuple(dataclasses.replace(s, depth=min(s.depth, depth), width=s.width // divisor) for s in config.stages)
    return config.replace(stages=stages)


def tiny(num_classes: int = 10, attention: bool = False, **details: object) -> FastViT:
    """A FastViT for tests in which the network does not matter: one block a stage, 32 channels at most."""
    from fastvit.model.config import Stage

    last = Stage(32, 1, "attention", 2.0, cpe=7) if attention else Stage(32, 1, mlp_ratio=2.0)
    config = FastViTConfig((Stage(16, 1, mlp_ratio=2.0), Stage(16, 1), Stage(32, 1), last), num_classes=num_classes)
    return FastViT(config, **details).eval()


def make_folder(root: Path, names: tuple[str, ...], splits: tuple[str, ...]) -> Path:
    """8 px images in a folder a class in a folder a split: two each, whose red value is the class."""
    for split in splits:
        for value, name in enumerate(names):
            (root / split / name).mkdir(parents=True)
            for i in range(2):
                Image.new("RGB", (8, 8), (value, i, 0)).save(root / split / name / f"{i}.png")
    return root


def noise_pictures(count: int, size: tuple[int, int] = (80, 72), seed: int = 0) -> list[Image.Image]:
    """RGB pictures of noise, of a height and width in pixels."""
    generator = np.random.default_rng(seed)
    return [Image.fromarray(generator.integers(0, 256, (*size, 3), np.uint8)) for _ in range(count)]


class Clock:
    """Seconds that pass only where a test lets them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 100.0
        monkeypatch.setattr("time.perf_counter", lambda: self.now)

    def takes(self, *seconds: float) -> Callable[[], None]:
        """A call that takes these times, again and again from the first."""
        turns = itertools.cycle(seconds)

        def call() -> None:
            self.now += next(turns)

        return call


def nested(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Fields by their dotted names, such as "optim.lr", in sections, as a recipe file has them."""
    content: dict[str, Any] = {}
    for name, value in fields.items():
        *sections, last = name.split(".")
        place = content
        for section in sections:
            place = place.setdefault(section, {})
        place[last] = value
    return content
