"""Recipes as typed data."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path

import pytest
import timm
import torch
import yaml

import fastvit
from fastvit.data.arrays import FASHION_MNIST_CLASSES
from fastvit.data.sampling import SampleIndex
from fastvit.errors import UserError
from fastvit.model.preprocessing import Preprocessing
from fastvit.model.task_model import TaskModel
from fastvit.synthetic.scenes import SEMANTIC_CLASSES, write_scenes
from fastvit.tasks.classification.data import ClassificationData, open_for_run
from fastvit.tasks.hand_mesh.skeleton import CLASSES
from fastvit.tasks.segmentation.options import SegmentationOptions
from fastvit.tasks.table import find_task
from fastvit.training.build import build_model
from fastvit.training.optim import configure
from fastvit.training.options import ModelOptions, Recipe
from fastvit.training.recipe import RECIPES, dump_recipe, load_recipe, parse_recipe, recipe_names

# Variant: drop path and mixup, plain and distilled. Only these differ (the official recipes; facts of the paper).
IMAGENET = {
    "t8": (0, 0.2, 0, 0.2),
    "t12": (0, 0.2, 0, 0.2),
    "s12": (0, 0.2, 0, 0.2),
    "sa12": (0.1, 0.2, 0, 0.8),
    "sa24": (0.1, 0.2, 0.05, 0.8),
    "sa36": (0.2, 0.2, 0.1, 0.8),
    "ma36": (0.35, 0.8, 0.2, 0.8),
}


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("recipes") / "scenes"
    write_scenes(folder, 2, 64, seed=0)
    return folder


@pytest.mark.parametrize("name", recipe_names())
def test_every_shipped_recipe_builds(name: str, scenes: Path) -> None:
    """All but the weights: on the meta device, with the classes of the sample and scenes made of it."""
    recipe = load_recipe(name)
    classes = {"segmentation": SEMANTIC_CLASSES, "hand_mesh": CLASSES}.get(recipe.task, FASHION_MNIST_CLASSES)
    recipe = replace(recipe, model=replace(recipe.model, pretrained=False))
    if recipe.task == "hand_mesh":  # MANO may not be here
        recipe = replace(recipe, sections={"hand_mesh": replace(recipe.hand_mesh, hand="procedural")})
    with torch.device("meta"):
        model = build_model(recipe, classes)
        optimizer = configure(model, steps=1000, epochs=recipe.epochs, options=recipe.optim)["optimizer"]
    assert model.task == recipe.task
    assert model.classes == classes
    assert sum(len(group["params"]) for group in optimizer.param_groups) == len(list(model.parameters()))
    header = (RECIPES / f"{name}.yaml").read_text()
    assert all(f"# {field}:" in header for field in ("Command", "Cost", "Expected"))
    assert f"--recipe {name}" in header
    if recipe.task == "hand_mesh":
        assert model.preprocessing.size == (recipe.hand_mesh.size,) * 2
        return
    if recipe.task != "classification":
        _see_that_dense_images_fit(recipe, model, scenes)
        return
    assert model.preprocessing.size == (recipe.model.size, recipe.model.size)
    loader = ClassificationData(
        open_for_run("sample"), model.preprocessing, recipe.batch_size, recipe.augmentation, num_workers=0
    )
    images, labels = loader.train_dataloader().dataset[SampleIndex(0, 0)]
    assert images.shape == (3, recipe.model.size, recipe.model.size)
    if recipe.distillation.teacher:
        assert timm.is_model(recipe.distillation.teacher)


def _see_that_dense_images_fit(recipe: Recipe, model: TaskModel, scenes: Path) -> None:
    """What the recipe makes of a scene is what its network is for."""
    section = recipe.detection if recipe.task == "detection" else recipe.segmentation
    assert model.options == section.network
    assert (model.preprocessing.size, model.preprocessing.resize) == (section.size, "resize_shorter")
    recipe, spec = replace(recipe, data=str(scenes), num_workers=0), find_task(recipe.task)
    data = spec.create_data(recipe, spec.open_images(recipe), model.preprocessing)
    image, target = data.train_dataloader().dataset[SampleIndex(0, 0)]
    if recipe.task == "segmentation":
        assert image.shape == (3, section.crop, section.crop)
        assert target.shape == (section.crop, section.crop)
    else:
        assert ("masks" in target) == section.network.masks
        low, high = (round(factor * min(section.size)) for factor in section.scale_range)
        assert low <= image.shape[1] == image.shape[2] <= high


def test_dense_recipes_are_the_published_ones() -> None:
    """Section 4.4 names PoolFormer's settings: COCO's 1x of 16 images a step, 40,000 steps of 32 crops of ADE20K."""
    for name, base in (("coco-maskrcnn", "base/coco"), ("ade20k-fpn", "base/ade20k")):
        for variant in IMAGENET:
            content = yaml.safe_load((RECIPES / f"{name}-{variant}.yaml").read_text())
            network = {"name": f"fastvit_{variant}"}
            assert content == {"base": base, "out": f"runs/{name}-{variant}", "model": network}, "nothing else differs"
    coco, ade = load_recipe("coco-maskrcnn-sa12"), load_recipe("ade20k-fpn-sa12")
    assert coco.model.pretrained
    assert ade.model.pretrained
    assert (coco.detection.network.kind, coco.detection.size, coco.epochs) == ("mask_rcnn", (800, 1333), 12)
    assert coco.batch_size * coco.devices * coco.accumulate_grad_batches == 16
    assert (coco.optim.lr, coco.optim.weight_decay) == (2e-4, 1e-4)
    assert (coco.optim.schedule, coco.optim.milestones) == ("step", (8, 11))
    steps = 118_287 // 16
    assert coco.optim.warmup_epochs * steps == pytest.approx(500, rel=0.01)
    batch = ade.batch_size * ade.devices * ade.accumulate_grad_batches
    assert (ade.segmentation.network.head, ade.segmentation.crop, batch) == ("fpn", 512, 32)
    assert (ade.optim.lr, ade.optim.schedule, ade.optim.power, ade.optim.min_lr) == (2e-4, "poly", 0.9, 0.0)
    assert ade.epochs * (20_210 // 32) == pytest.approx(40_000, rel=0.02)


@pytest.mark.parametrize("variant", IMAGENET)
def test_imagenet_recipes_are_the_published_ones(variant: str) -> None:
    drop_path, mixup, drop_path_distilled, mixup_distilled = IMAGENET[variant]
    plain, distilled, large = (load_recipe(f"imagenet-{variant}{kind}") for kind in ("", "-distilled", "-384"))
    assert (plain.model.drop_path, plain.mixup.mixup) == (drop_path, mixup)
    assert (distilled.model.drop_path, distilled.mixup.mixup) == (drop_path_distilled, mixup_distilled)
    assert {r.model.name for r in (plain, distilled, large)} == {f"fastvit_{variant}"}
    same = replace(
        distilled,
        model=plain.model,
        sections=distilled.sections | {name: plain.sections[name] for name in ("mixup", "distillation")},
        out=plain.out,
    )
    assert same == plain, "nothing else differs"
    assert plain.batch_size * plain.devices == 1024
    assert (plain.optim.lr, plain.optim.min_lr, plain.epochs + plain.optim.cooldown_epochs) == (1e-3, 1e-5, 310)
    assert (distilled.distillation.teacher, distilled.distillation.alpha) == ("regnety_160.deit_in1k", 0.5)
    assert (large.model.size, large.epochs, large.optim.lr, large.batch_size * large.devices) == (384, 30, 5e-5, 512)
    assert large.optim.weight_decay == 1e-8


def test_a_resolved_recipe_reads_back(tmp_path: Path) -> None:
    recipe = load_recipe("imagenet-sa12-distilled", "--optim.betas=[0.8,0.9]", "--wandb=mine")
    (tmp_path / "recipe.yaml").write_text(dump_recipe(recipe))
    assert load_recipe(str(tmp_path / "recipe.yaml")) == recipe


def test_a_base_is_changed_by_what_names_it(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("base: imagenet-sa12\noptim:\n  lr: 2e-3\n")
    recipe = load_recipe(str(path), "--epochs=7")
    assert (recipe.optim.lr, recipe.epochs, recipe.model.name, recipe.model.drop_path) == (2e-3, 7, "fastvit_sa12", 0.1)
    path.write_text("base: nonsense\n")
    with pytest.raises(UserError, match="unknown recipe 'nonsense'"):
        load_recipe(str(path))


def test_any_field_is_an_option() -> None:
    recipe = load_recipe("quickstart", "--epochs=3", "--optim.lr", "0.5", "--model.name=sa12", "--mixup.mixup=0.1")
    assert (recipe.epochs, recipe.optim.lr, recipe.model.name, recipe.mixup.mixup) == (3, 0.5, "sa12", 0.1)
    assert recipe.model.size == 64, "what is not named stays the recipe's"


def test_options_win_wherever_they_stand() -> None:
    for line in ("--recipe quickstart --epochs 9", "--epochs 9 --recipe quickstart", "--epochs=9 --recipe=quickstart"):
        recipe = parse_recipe(line.split())
        assert (recipe.epochs, recipe.model.size) == (9, 64)


def test_hyphens_do_for_underscores() -> None:
    recipe = load_recipe("imagenet-t8", "--val-fraction=0.1", "--optim.min-lr", "1e-7")
    assert (recipe.val_fraction, recipe.optim.min_lr) == (0.1, 1e-7)


def test_a_resumed_run_has_its_own_recipe(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text(dump_recipe(load_recipe("quickstart", "--epochs=7")))
    resumed = parse_recipe(["--resume", str(tmp_path), "--num-workers=3"])
    assert (resumed.epochs, resumed.num_workers, resumed.out) == (7, 3, tmp_path)
    for more in (["--recipe", "quickstart"], ["--out=elsewhere"]):
        with pytest.raises(UserError, match="leave out --recipe and --out"):
            parse_recipe(["--resume", str(tmp_path), *more])


def test_preprocessing_is_the_variants_unless_named() -> None:
    model = build_model(Recipe(model=ModelOptions("sa36", size=96)), ("a", "b"))
    assert (model.preprocessing.size, model.preprocessing.crop_pct) == ((96, 96), 0.95)
    named = build_model(Recipe(model=ModelOptions("sa36", mean=(0.1, 0.2, 0.3))), ("a", "b"))
    assert named.preprocessing.mean == (0.1, 0.2, 0.3)
    assert named.preprocessing.std == model.preprocessing.std


def test_a_field_that_may_be_none_is_switched_off_by_null() -> None:
    """An empty value is an error on the command line; in a recipe of before it means the same."""
    assert load_recipe("finetune", "--augmentation.auto_augment=null").augmentation.auto_augment is None
    assert load_recipe("finetune", "--data=photos").augmentation.auto_augment


def test_a_null_is_written_down(tmp_path: Path) -> None:
    """Left out, it would be the default when the run goes on."""
    recipe = load_recipe("finetune", "--augmentation.auto_augment=null")
    (tmp_path / "recipe.yaml").write_text(dump_recipe(recipe))
    assert load_recipe(str(tmp_path / "recipe.yaml")) == recipe


def test_an_empty_option_is_an_error() -> None:
    for option in ("data", "out", "resume", "model.weights", "wandb", "epochs"):
        with pytest.raises(UserError, match=f"--{option} is empty"):
            load_recipe("quickstart", f"--{option}=")


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("--epochs=many", r"^--epochs must be an integer, got 'many' \(see fastvit train --help run\)$"),
        ("--optim.lr=abc", r"^--optim.lr must be a number, got 'abc' \(see fastvit train --help optim\)$"),
        ("--optim.schedule=cos", "--optim.schedule must be one of cosine, poly, step; got 'cos'"),
        ("--optim.betas=[1]", r"--optim.betas must be a list of 2 numbers in brackets, got '\[1\]'"),
        ("--optim.milestones=a", "--optim.milestones must be a list of integers in brackets, got 'a'"),
        ("--model.mean=x", "--model.mean must be a list of 3 numbers in brackets or null, got 'x'"),
        ("--num-workers=x", "--num-workers must be an integer or null, got 'x'"),
        ("--optim.lr=null", "--optim.lr must be a number, got null"),
        ("--compile=7", "--compile must be true or false, got '7'"),
        ("--optim=3", "--optim must be a .yaml file"),
        ("--epochs=0", "epochs must be at least 1"),
        ("--num-workers=-1", "num_workers must be at least 0 or null, got -1"),
        ("--batch_size=1", "batch_size must be at least 2"),
        ("--recipe", "recipe.*expected one argument"),
        ("--optim.lr=0", r"optim\.lr must be above 0"),
        ("--model.crop_pct=2", r"model\.crop_pct"),
        ("--optim.warmup_epochs=6", "must be less than epochs"),
        ("--optim.leraning_rate=1", r"no option --optim\.leraning-rate: did you mean"),
        ("--precision=fp7", "precision.*bf16-mixed"),
    ],
)
def test_a_wrong_field_is_named(option: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        load_recipe("quickstart", option)


def test_a_wrong_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="unknown recipe 'nonsense'; choose from .*quickstart"):
        load_recipe("nonsense")
    with pytest.raises(UserError, match="the recipe file none.yaml does not exist"):
        load_recipe("none.yaml")
    path = tmp_path / "mine.yaml"
    for content, message in {
        "epochs: 30\nmodell: t8": "modell",  # codespell:ignore modell
        "epochs: 3\n b: [\n": r"mine.yaml is not valid YAML \(line 2, column 3\): mapping values are not allowed here",
        "epochs: [": r"mine.yaml is not valid YAML \(line 1, column",
        "optim: {lr: fast}": "mine.yaml: optim.lr must be a number, got 'fast'",
        "optim: {schedule: cos}": "mine.yaml: optim.schedule must be one of cosine, poly, step; got 'cos'",
        "optim: {lrr: 1}": r"mine.yaml: optim.lrr is not a recipe field: did you mean optim\.lr",
        "lr: 1": r"mine.yaml: lr is not a recipe field: did you mean optim\.lr\?",
        "zzz: 1": "mine.yaml: zzz is not a recipe field",
        "optim: 3": "mine.yaml: optim must contain fields",
    }.items():
        path.write_text(content)
        with pytest.raises(UserError, match=message):
            load_recipe(str(path))
    path.write_text("epochs: 30")
    assert load_recipe(str(path)).epochs == 30


@pytest.mark.parametrize("task", ["classification", "segmentation", "segmentation on a classifier"])
def test_the_recipe_and_the_data_have_the_last_word_over_weights(task: str, tmp_path: Path) -> None:
    """Size and named fields are the recipe's, classes the data's; what the recipe leaves open is the weights'."""
    own = Preprocessing((64, 64), (0.1, 0.2, 0.3), (0.4, 0.5, 0.6), 0.75)
    if task == "segmentation":
        start: TaskModel = fastvit.create_segmenter(
            "t8", classes="abc", preprocessing={"size": (64, 64), "mean": own.mean}
        )
    else:
        start = fastvit.create_model("t8", classes="abc", preprocessing=asdict(own))
    weights = fastvit.save(start, tmp_path / "start.safetensors")
    name = task.partition(" ")[0]
    sections = {"segmentation": SegmentationOptions(size=(96, 192))} if name == "segmentation" else {}
    options = ModelOptions(
        "t8", size=32 if name == "classification" else 256, weights=str(weights), std=(0.7, 0.8, 0.9)
    )
    model = build_model(Recipe(task=name, model=options, sections=sections), ("x", "y", "z"))
    assert model.classes == ("x", "y", "z")
    assert model.preprocessing.size == ((32, 32) if name == "classification" else (96, 192))
    assert (model.preprocessing.mean, model.preprocessing.std) == (own.mean, (0.7, 0.8, 0.9))
    assert model.preprocessing.crop_pct == (0.75 if name == "classification" else Preprocessing().crop_pct)
    kept = start.trunk.state_dict()
    assert all(torch.equal(tensor, kept[key]) for key, tensor in model.trunk.state_dict().items())


def test_a_section_of_another_task_that_says_something_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    for content, message in {
        "task: detection\nmixup:\n  mixup: 0.5\n": "the section mixup does not apply to detection: leave it out",
        "detection:\n": "mine.yaml: detection must contain fields",
    }.items():
        path.write_text(content)
        with pytest.raises(UserError, match=message):
            load_recipe(str(path))
    path.write_text("task: detection\nmixup:\n  mixup: 0.2\n")  # as it is by default
    assert load_recipe(str(path)).task == "detection"
