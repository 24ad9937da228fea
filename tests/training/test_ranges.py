"""Values of recipe fields that are out of range are errors that name the field."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from timm.data import create_transform

from fastvit.data.augmentation import Augmentation
from fastvit.errors import UserError
from fastvit.ranges import NOT_NEGATIVE, POSITIVE, PROBABILITY, RATE, SHARE, Range
from fastvit.training.fields import recipe_fields
from fastvit.training.options import Recipe
from fastvit.training.recipe import parse_recipe

# Valid and invalid values.
VALUES = {
    "epochs": (["6"], ["0", "-3"]),
    "val_fraction": (["0", "0.5"], ["1", "-0.1"]),
    "model.size": (["32"], ["3", "31"]),
    "model.drop_path": (["0", "0.9"], ["1", "2", "-0.1", ".nan"]),
    "model.layer_scale_init": (["null", "1e-5"], ["-1"]),
    "model.std": (["null", "[1,1,1]"], ["[0,1,1]"]),
    "model.crop_pct": (["1"], ["0", "2"]),
    "optim.lr": (["0.1"], ["0", "-1", ".nan", ".inf"]),
    "optim.min_lr": (["0"], ["-1"]),
    "optim.weight_decay": (["0"], ["-0.1"]),
    "optim.layer_decay": (["1"], ["0", "1.1"]),
    "optim.betas": (["[0,0.9]"], ["[0.9,1]", "[-1,0.9]"]),
    "optim.clip_grad": (["null", "1"], ["0", "-2"]),
    "ema.decay": (["0"], ["1"]),
    "mixup.mixup": (["0", "2"], ["-1"]),
    "mixup.cutmix": (["0", "2"], ["-1"]),
    "mixup.mixup_prob": (["0", "1"], ["3", "-1"]),
    "mixup.mixup_switch_prob": (["0", "1"], ["3", "-1"]),
    "mixup.label_smoothing": (["0", "0.9"], ["1", "2", "-0.1"]),
    "augmentation.scale": (["[1,1]", "[0.1,0.2]"], ["[2,1]", "[1,0.5]", "[0,1]", "[0.5,2]"]),
    "augmentation.ratio": (["[0.5,2]"], ["[0,1]", "[2,1]"]),
    "augmentation.hflip": (["0", "1"], ["2", "-1"]),
    "augmentation.color_jitter": (["0"], ["-1"]),
    "augmentation.random_erasing": (["0", "1"], ["5", "-1"]),
    "augmentation.auto_augment": (["null", "v0", "rand-m9-mstd0.5-inc1"], ["xx", "rand-q3", "rand-m9.5-inc1"]),
    "distillation.alpha": (["0", "1"], ["2"]),
    "distillation.temperature": (["1"], ["0"]),
}


@pytest.mark.parametrize("name", VALUES)
def test_values_out_of_range_are_errors(name: str) -> None:
    good, bad = VALUES[name]
    for value in good:
        parse_recipe([f"--{name}={value}"])
    for value in bad:
        with pytest.raises(UserError, match=f"^{re.escape(name)} must be .*, got "):
            parse_recipe([f"--{name}={value}"])


@pytest.mark.parametrize("field", list(recipe_fields(Recipe())), ids=lambda field: field.name)
def test_a_negative_number_is_nowhere_accepted_in_silence(field) -> None:  # type: ignore[no-untyped-def]
    """The mean of pixels may be anything; no other number may be negative."""
    if field.kind in (int, float, int | None, float | None):
        with pytest.raises(UserError, match=re.escape(field.name)):
            parse_recipe([f"--{field.name}=-1"])


@given(st.floats(), st.sampled_from([NOT_NEGATIVE, POSITIVE, PROBABILITY, RATE, SHARE, Range(32)]))
def test_a_range_is_what_its_text_says(value: float, allowed: Range) -> None:
    tests = {
        "at least 0": 0 <= value < float("inf"),
        "above 0": 0 < value < float("inf"),
        "from 0 to 1": 0 <= value <= 1,
        "at least 0 and below 1": 0 <= value < 1,
        "above 0 and at most 1": 0 < value <= 1,
        "at least 32": 32 <= value < float("inf"),
    }
    assert (value in allowed) is tests[str(allowed)]


PARTS = st.sampled_from(["m9", "n2", "mstd0.5", "mmax10", "inc1", "p0.5", "w3", "d2", "b1", "a1", "q1"])


@given(st.sampled_from(["rand", "augmix", "original", "v0r", "3a", "v1"]), st.lists(PARTS, max_size=3))
def test_policies_are_those_of_timm(name: str, parts: list[str]) -> None:
    policy = "-".join([name, *parts])
    try:
        Augmentation(auto_augment=policy)
    except UserError:
        with pytest.raises(AssertionError):
            create_transform(32, is_training=True, auto_augment=policy)
    else:
        create_transform(32, is_training=True, auto_augment=policy)
