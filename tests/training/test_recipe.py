"""Recipes as typed data."""

from __future__ import annotations

from pathlib import Path

import pytest

from fastvit.data.arrays import FASHION_MNIST_CLASSES
from fastvit.errors import UserError
from fastvit.training.options import ModelOptions
from fastvit.training.recipe import load_recipe, parse_recipe, recipe_names, recipe_parser
from fastvit.training.train import build_model


@pytest.mark.parametrize("name", recipe_names())
def test_every_shipped_recipe_builds(name: str) -> None:
    recipe = load_recipe(name)
    model = build_model(recipe.model, FASHION_MNIST_CLASSES)
    assert model.preprocessing.size == (recipe.model.size, recipe.model.size)
    assert model.classes == FASHION_MNIST_CLASSES


def test_any_field_is_an_option() -> None:
    recipe = load_recipe("quickstart", "--epochs=3", "--optim.lr", "0.5", "--model.name=sa12", "--mixing.mixup=0.1")
    assert (recipe.epochs, recipe.optim.lr, recipe.model.name, recipe.mixing.mixup) == (3, 0.5, "sa12", 0.1)
    assert recipe.model.size == 64, "what is not named stays the recipe's"


def test_options_win_wherever_they_stand() -> None:
    parser = recipe_parser()
    for line in ("--recipe quickstart --epochs 9", "--epochs 9 --recipe quickstart", "--epochs=9 --recipe=quickstart"):
        recipe = parse_recipe(parser, line.split())
        assert (recipe.epochs, recipe.model.size) == (9, 64)


def test_preprocessing_is_the_variants_unless_named() -> None:
    model = build_model(ModelOptions("sa36", size=96), ("a", "b"))
    assert (model.preprocessing.size, model.preprocessing.crop_pct) == ((96, 96), 0.95)
    named = build_model(ModelOptions("sa36", mean=(0.1, 0.2, 0.3)), ("a", "b"))
    assert named.preprocessing.mean == (0.1, 0.2, 0.3)
    assert named.preprocessing.std == model.preprocessing.std


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("--epochs=many", 'key "epochs".*many'),
        ("--epochs=0", "epochs must be at least 1"),
        ("--batch_size=1", "batch_size must be at least 2"),
        ("--recipe", "recipe.*expected one argument"),
        ("--optim.lr=0", r"optim\.lr must be above 0"),
        ("--model.crop_pct=2", r"model\.crop_pct"),
        ("--optim.warmup_epochs=6", "must be less than epochs"),
        ("--optim.leraning_rate=1", r"optim\.leraning_rate"),
        ("--precision=fp7", "precision.*bf16-mixed"),
    ],
)
def test_a_wrong_field_is_named(option: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        load_recipe("quickstart", option)


def test_a_wrong_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no recipe nonsense; there are .*quickstart"):
        load_recipe("nonsense")
    path = tmp_path / "mine.yaml"
    for content, message in {
        "epochs: 30\nmodell: t8": "modell",
        "epochs: [": "mine.yaml",
        "optim: {lr: fast}": "optim.lr",
    }.items():
        path.write_text(content)
        with pytest.raises(UserError, match=message):
            load_recipe(str(path))
    path.write_text("epochs: 30")
    assert load_recipe(str(path)).epochs == 30
