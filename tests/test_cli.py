"""The command: what it prints, what it writes, how it fails; each of its ways once through a real process."""

from __future__ import annotations

import contextlib
import csv
import inspect
import io
import itertools
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import fastvit
from fastvit.cli.commands import COMMANDS
from fastvit.cli.main import main
from fastvit.cli.parser import command_parser
from fastvit.cli.train_help import USUAL
from fastvit.errors import UserError
from fastvit.tasks.table import TASKS, find_task
from fastvit.training.fields import Field, recipe_fields
from fastvit.training.options import Recipe
from fastvit.training.recipe import parse_recipe, recipe_names
from tests.helpers import randomize, tiny
from tests.reports.checks import check_page

Run = Callable[..., "subprocess.CompletedProcess[str]"]


def process(*arguments: object, **variables: str) -> subprocess.CompletedProcess[str]:
    """The command as a person starts it."""
    command = [sys.executable, "-m", "fastvit", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env=os.environ | variables, timeout=300)


def inside(*arguments: object) -> subprocess.CompletedProcess[str]:
    """The same in this process, which has paid for importing torch: for what a test does not begin with."""
    out, errors = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(errors):
        code = main(list(map(str, arguments)))
    return subprocess.CompletedProcess([], code, out.getvalue(), errors.getvalue())


def succeeded(*arguments: object, run: Run = process, **variables: str) -> str:
    done = run(*arguments, **variables)
    assert done.returncode == 0, done.stderr
    return done.stdout


def complaint(*arguments: object, run: Run = process) -> str:
    """The one line that a mistake gets."""
    done = run(*arguments)
    assert done.returncode == 2, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("fastvit: error: ")
    return lines[0]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from fastvit.data.arrays import FASHION_MNIST_CLASSES

    torch.manual_seed(0)
    model = randomize(tiny(classes=FASHION_MNIST_CLASSES, preprocessing=fastvit.Preprocessing((32, 32))))
    return fastvit.save(model, tmp_path_factory.mktemp("cli") / "model.safetensors", {"top1": 0.1})


def test_help_and_version() -> None:
    text = succeeded("--help")
    for command in COMMANDS:
        assert f"\n  {command} " in text
    assert succeeded(run=inside) == succeeded("help", run=inside) == text
    assert succeeded("--version", run=inside).strip() == f"fastvit {fastvit.__version__}"


def test_help_imports_no_torch() -> None:
    script = "import sys, fastvit.cli.main as cli; cli.main(['--help']); cli.main(['bench', '--help']); "
    script += "sys.exit('torch' in sys.modules or 'jsonargparse' in sys.modules)"
    subprocess.run([sys.executable, "-c", script], check=True, stdout=subprocess.DEVNULL)


OPTIONS = [
    (command, parameter)
    for command, function in COMMANDS.items()
    for parameter in inspect.signature(function, eval_str=True).parameters.values()
    if command != "train" and parameter.kind is not parameter.POSITIONAL_ONLY
    if parameter.default is not parameter.empty and parameter.annotation != list[str]
]


@pytest.mark.parametrize("command", [command for command in COMMANDS if command != "train"])
def test_each_option_has_help_and_hyphens(command: str) -> None:
    parser = command_parser(command, COMMANDS[command])
    text = succeeded(*command.split(), "--help", run=inside)
    assert text == succeeded("help", *command.split(), run=inside) == parser.format_help()
    assert all(action.help for action in parser._actions)
    assert not re.search(r"-[\w-]*_", text)
    for name in (parameter.name for owner, parameter in OPTIONS if owner == command):
        assert f"--{name.replace('_', '-')} " in text.replace("]", " ").replace("\n", " ")


@pytest.mark.parametrize(("command", "parameter"), OPTIONS, ids=str)
def test_options_are_alike_in_all_commands(command: str, parameter: inspect.Parameter) -> None:
    """Both spellings, flags without a value, and a suggestion for what is mistyped."""
    parser, option = command_parser(command, COMMANDS[command]), f"--{parameter.name}"
    (action,) = (action for action in parser._actions if action.dest == parameter.name)
    assert (action.nargs == 0) is (parameter.annotation is bool)
    shown = option.replace("_", "-")
    assert shown in action.option_strings
    assert (option[1:] in action.option_strings) is (len(parameter.name) == 1)
    line = complaint(*command.split(), "a", "b", f"{option}x=", run=inside)
    assert f"{shown}x is empty" in line
    line = complaint(*command.split(), "a", "b", f"{option}x", run=inside)
    assert f"fastvit {command} has no option {shown}x" in line
    assert len(shown) < 4 or shown in line.partition("did you mean ")[2]


# All fields of recipes, by name, of all tasks.
FIELDS = {field.name: field for task in TASKS for field in recipe_fields(Recipe(task=task))}


def task_of(field: str) -> str:
    """The first task whose recipes have a field."""
    return next(task for task in TASKS if any(known.name == field for known in recipe_fields(Recipe(task=task))))


@pytest.mark.parametrize("name", [name for name, field in FIELDS.items() if field.kind is bool])
def test_flags_of_train_are_bare(name: str) -> None:
    """As those of the other commands; a recipe's true is switched off by --no-NAME, and values may be written out."""

    def flag(*arguments: str) -> object:
        recipe = parse_recipe([f"--task={task_of(name)}", *arguments])
        return next(field.value for field in recipe_fields(recipe) if field.name == name)

    hyphens = name.replace("_", "-")
    assert flag(f"--{hyphens}") is flag(f"--{name}", "--epochs=50") is flag(f"--{hyphens}=true") is True
    assert (
        flag(f"--{hyphens}", "true", "--epochs=50") is flag("--epochs", "50", f"--no-{hyphens}", f"--{hyphens}") is True
    )
    assert flag(f"--{hyphens}", f"--no-{hyphens}") is flag(f"--{name}=false") is flag(f"--{hyphens}", "false") is False


@pytest.mark.parametrize("name", FIELDS)
def test_options_of_train_take_hyphens_and_are_suggested(name: str) -> None:
    option = f"--{name.replace('_', '-')}"
    with pytest.raises(UserError, match=re.escape(f"fastvit train has no option {option}x: did you mean ")) as caught:
        parse_recipe([f"--task={task_of(name)}", f"--{name}x=1"])
    assert option in re.split(r" or |\?", str(caught.value).partition("did you mean ")[2])


def test_help_of_train_is_a_page(monkeypatch: pytest.MonkeyPatch) -> None:
    """Usual fields in groups, less than two screens, and how to see the others."""
    monkeypatch.setenv("COLUMNS", "80")
    text = succeeded("train", "--help")
    assert text == succeeded("help", "train", run=inside) == succeeded("train", "-h", run=inside)
    assert len(text.splitlines()) <= 80
    assert max(map(len, text.splitlines())) <= 80
    names = {field.name for field in recipe_fields(Recipe())}
    for name in itertools.chain(*USUAL.values()):
        assert name in names
        assert re.search(rf"{name.replace('_', '-')}\s", text)
    for part in (
        "--help SECTION",
        "--help-all",
        "--print-config",
        "--recipe NAME|FILE",
        "--epochs N ",
        "--[no-]compile",
    ):
        assert part in text
    assert "(default: 300)" in text


@pytest.mark.parametrize("task", TASKS)
def test_help_of_train_by_sections(task: str) -> None:
    everything = " ".join(succeeded("train", "--task", task, "--help-all", run=inside).split())
    by_section: dict[str, list[Field]] = {}
    for field in recipe_fields(Recipe(task=task)):
        by_section.setdefault(field.section or "run", []).append(field)
    for section, fields in by_section.items():
        text = succeeded("train", "--help", section, "--task", task, run=inside)
        assert text == succeeded("train", f"--help={section}", "--task", task, run=inside)
        assert text == succeeded("help", "train", section, f"--task={task}", run=inside)
        shown = re.findall(r"^  --(?:\[no-\])?(\S+)", text, re.MULTILINE)
        assert shown == [field.name.replace("_", "-") for field in fields]
        for name in shown:
            assert re.search(rf"^  --(\[no-\])?{re.escape(name)}\b.*?(  |\n {{20}} +)\S", text, re.MULTILINE), name
        body = text[text.index(f"\n{section}: ") : text.index("\nA flag alone")]
        assert " ".join(body.split()) in everything
    recipes = succeeded("train", "--help", "recipes", run=inside)
    assert all(f"\n  {name} " in recipes for name in recipe_names())
    line = complaint("train", "--help", "optm", run=inside)
    assert "unknown help section 'optm': did you mean optim?" in line
    others = everything.partition(f"These are the sections of {task}. ")[2]
    for other in TASKS:
        assert (f"--task {other}: {next(iter(find_task(other).sections))}" in others) is (other != task)
    for terms, owner in (
        ("anchor size, score threshold, NMS threshold", "detection"),
        ("class weights", "segmentation"),
    ):
        assert (terms in others) is (owner != task)


def test_help_of_train_shows_the_values_of_a_recipe(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("base: quickstart\nepochs: 7\ncompile: true\n")
    text = succeeded("train", "--recipe", tmp_path / "mine.yaml", "--optim.lr", "0.5", "--help", "all", run=inside)
    text = " ".join(text.split())
    for name, value in (("epochs", "7"), ("[no-]compile", "true"), ("optim.lr", "0.5"), ("data", "sample")):
        assert re.search(rf"--{re.escape(name)}[^(]*\(default: {re.escape(value)}\)", text), name
    assert "unknown recipe 'mein'" in complaint("train", "--recipe", "mein", "--help", run=inside)


def test_models() -> None:
    rows = [line.split() for line in succeeded("models", "sa12").splitlines() if line.strip().startswith("fastvit_")]
    assert rows == [["fastvit_sa12", "11.58", "11.54", "1.94", "80.9", "81.9", "1.6", "apple_in1k,", "apple_dist_in1k"]]


def test_info(checkpoint: Path) -> None:
    text = succeeded("info", checkpoint)
    for part in ("train", "native", "T-shirt/top", "32x32", "top1 0.1000"):
        assert part in text


@pytest.mark.slow
def test_eval_of_checkpoint_and_artifact_agree(checkpoint: Path, tmp_path: Path) -> None:
    first = json.loads(succeeded("eval", checkpoint, "--json", "--num-workers", "0"))
    assert first["images"] == 1000
    assert 0 <= first["top1"] <= first["top5"] <= 1
    text = succeeded("export", checkpoint, "--batch", "dynamic", "--out", tmp_path / "m", run=inside)
    assert "same top-1 on 100.00%" in text
    (artifact,) = (tmp_path / "m").glob("*.onnx")
    second = json.loads(succeeded("eval", artifact, "--json", "--num-workers", "0", run=inside))
    assert second["top1"] == first["top1"]
    assert second["loss"] == pytest.approx(first["loss"], rel=1e-4)


def test_predict(checkpoint: Path, photo: Path, tmp_path: Path) -> None:
    text = succeeded("predict", checkpoint, photo, "--k", "2")
    assert "top 2" in text
    (line,) = succeeded("predict", checkpoint, photo.parent, "--json", run=inside).splitlines()
    prediction = json.loads(line)
    assert prediction["image"] == str(photo)
    assert len(prediction["predictions"]) == 5
    (tmp_path / "letter.png").write_text("no image")
    done = inside("predict", checkpoint, photo, tmp_path / "letter.png", "--json")
    assert done.returncode == 2
    assert len(done.stdout.splitlines()) == 1, "the good one is answered"
    assert done.stderr.count("\n") == 1
    assert "letter.png is not a readable image" in done.stderr


@pytest.mark.parametrize("channels", [1, 4])
def test_other_channels_than_three(channels: int, tmp_path: Path) -> None:
    config = tiny().config.replace(in_chans=channels)
    preprocessing = fastvit.Preprocessing(size=(32, 32)).for_channels(channels)
    path = fastvit.save(
        randomize(fastvit.FastViT(config, preprocessing=preprocessing)).eval(), tmp_path / "m.safetensors"
    )
    assert "relative" in succeeded("fuse", path, run=inside)
    if channels == 1:
        assert "cosine" in succeeded("export", path, "--to", "torch", "--images", 4, run=inside)


def test_fuse_and_convert(checkpoint: Path, tmp_path: Path) -> None:
    work = tmp_path / "model.safetensors"
    work.write_bytes(checkpoint.read_bytes())
    assert "on 4 random images" in succeeded("fuse", work, run=inside)
    fused = fastvit.load(tmp_path / "model-fused.safetensors")
    assert fastvit.form(fused) == "fused"
    full = fastvit.save(fastvit.create_model("t8", num_classes=3), tmp_path / "t8.safetensors")
    succeeded("convert", full, tmp_path / "t8.pth.tar", "--to", "official", run=inside)
    assert "official layout" in succeeded(
        "convert", tmp_path / "t8.pth.tar", tmp_path / "t.safetensors", "--to=official", run=inside
    )
    succeeded("convert", tmp_path / "t8.pth.tar", tmp_path / "back.safetensors", run=inside)
    before, after = fastvit.load(full), fastvit.load(tmp_path / "back.safetensors")
    assert all(a.equal(b) for a, b in zip(before.parameters(), after.parameters(), strict=True))


def test_bench(checkpoint: Path, tmp_path: Path) -> None:
    options = ("--rounds", "2", "--size", "32", "--device", "cpu", "--out", tmp_path / "out")
    text = succeeded("bench", checkpoint, "--backends", "train form,fused,onnxruntime", *options, run=inside)
    for name in ("train form", "fused", "onnxruntime", "report.html"):
        assert name in text
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"latency.csv", "report.html"}


def test_an_unreadable_image_ends_an_evaluation_in_one_line(checkpoint: Path, folder: Path) -> None:
    model = fastvit.load(checkpoint)
    model.reset_classifier(2)
    two = fastvit.save(model, folder / "two.safetensors")
    next((folder / "val").rglob("*.png")).write_text("no image")
    assert "is not a readable image: remove or repair it" in complaint("eval", two, "--data", folder, run=inside)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["fly"], "unknown command 'fly'; choose from quickstart, models"),
        (["evl"], "unknown command 'evl': did you mean eval?"),
        (["bench", "trian"], "unknown command 'bench trian': did you mean bench train?"),  # codespell:ignore trian
        (["bench", "--trian"], "fastvit bench models has no option --trian"),
        (["bench", "train", "t8", "--peers"], "fastvit bench train has no option --peers"),
        (["bench", "train", "t8", "--memory"], "fastvit bench train has no option --memory"),
        (["bench", "train", "t8", "--minutes", "1"], "fastvit bench train has no option --minutes"),
        (["bench", "gpu", "t8", "--preset", "gpu"], "fastvit bench gpu has no option --preset"),
        (["bench", "gpu", "t8", "--runtime", "timm"], "fastvit bench gpu has no option --runtime"),
        (["bench", "t8", "--minutes", "1"], "fastvit bench models has no option --minutes"),
        (
            ["bench", "t8", "--preset", "gpux"],
            "--preset: unknown choice 'gpux': did you mean gpu? Choose from mobile, gpu",
        ),
        (["models", "t8", "s12"], "fastvit models takes no further argument 's12'"),
        (["models", "resnet*"], "no variant matches"),
        (["info"], "the following arguments are required: CHECKPOINT"),
        (["info", "none.safetensors"], "there is no file none.safetensors"),
        (["info", "--", "--no_file"], "there is no file --no_file"),
        (["predict", "CHECKPOINT", "-k", "2", "none.png", "--json", "other.png"], "none.png does not exist"),
        (["predict", "CHECKPOINT"], "required: IMAGE"),
        (["predict", "CHECKPOINT", "none.png"], "none.png does not exist"),
        (["predict", "CHECKPOINT", "x.png", "--k", "many"], "-k/--k: invalid int value: 'many'"),
        (["eval", "CHECKPOINT", "--data", "nowhere"], f"the folder {Path.cwd()}/nowhere does not exist"),
        (["eval", "CHECKPOINT", "--device", "cuda"], "the device cuda is not available"),
        (["eval", "CHECKPOINT", "--batch-size", "0"], "batch_size must be at least 1"),
        (["bench", "CHECKPOINT", "--rounds", "0"], "rounds must be at least 1"),
        (["bench", "CHECKPOINT", "--threads", "0"], "threads must be at least 1"),
        (["bench", "CHECKPOINT", "--batch", "0"], "batch must be numbers of images"),
        (["bench", "CHECKPOINT", "--size", "20"], "size must be numbers of pixels from 32 on"),
        (["bench", "CHECKPOINT", "--backends", "tvm"], "unknown backend 'tvm'; choose from auto, all, timm"),
        (["bench", "CHECKPOINT", "--preset", "gpu"], "the device cuda is not available"),
        (
            ["predict", "CHECKPOINT", "PHOTO", "--runtime", "litert"],
            "a checkpoint runs in torch, onnxruntime and openvino",
        ),
        (["fuse", "CHECKPOINT", "--out", "model.pth"], "model.pth: give a file name that ends in .safetensors"),
        (["convert", "CHECKPOINT", "out.txt", "--to", "timm"], "ends in .safetensors"),
        (["convert", "CHECKPOINT", "out.txt"], "out.txt: give a file name that ends in .safetensors"),
        (["convert", "CHECKPOINT", "out.txt", "--to", "official"], "ends in .pth.tar or .safetensors"),
        (
            ["convert", "CHECKPOINT", "out.pth", "--to", "keras"],
            "--to: unknown choice 'keras'; choose from native, official, timm",
        ),
        (["export", "CHECKPOINT", "--to", "toaster"], "unknown export target 'toaster'; choose from onnx"),
        (["bench", "fastvit_x"], "unknown FastViT variant 'fastvit_x'"),
        (["train", "--recipe", "nonsense"], "unknown recipe 'nonsense'"),
        (["train", "--optim.speed", "9"], "fastvit train has no option --optim.speed"),
        (["train", "--batch-sise", "9"], "no option --batch-sise: did you mean --batch-size?"),
        (["train", "--lr", "1"], "fastvit train has no option --lr: did you mean --optim.lr?"),
        (["train", "--learning-rate=1"], "fastvit train has no option --learning-rate: did you mean --optim.lr?"),
        (["train", "--weight-decay", "0"], "did you mean --optim.weight-decay?"),
        (["train", "--imgsz", "64"], "fastvit train has no option --imgsz: did you mean --model.size"),
        (["train", "--label-smoothing", "0"], "did you mean --mixup.label-smoothing?"),
        (["train", "--smoothing", "0"], "did you mean --mixup.label-smoothing?"),
        (["predict", "CHECKPOINT", "PHOTO", "--conf", "0"], "has no option --conf: did you mean --score?"),
        (["export", "CHECKPOINT", "--format", "onnx"], "has no option --format: did you mean --to?"),
        (["train", "--overwrite=perhaps"], "--overwrite must be true or false, got 'perhaps'"),
        (["train", "--help-all", "mixup"], "--help-all takes no section; use fastvit train --help mixup"),
        (["train", "--detection.size", "64"], "--detection.size is for detection, this recipe is for classification"),
        (["train", "--task", "detecton"], "unknown task 'detecton': did you mean detection?"),
        (["train", "--data", "nowhere"], f"the folder {Path.cwd()}/nowhere does not exist"),
        (["quickstart", "--epochs", "0"], "epochs must be at least 1"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, list) else "",
)
def test_mistakes_are_one_line(checkpoint: Path, photo: Path, arguments: list[str], message: str) -> None:
    if "cuda" in message and torch.cuda.is_available():
        pytest.skip("this machine has the device")
    files = {"CHECKPOINT": checkpoint, "PHOTO": photo}
    assert message in complaint(*(files.get(argument, argument) for argument in arguments), run=inside)


@pytest.mark.parametrize("command", COMMANDS)
def test_options_are_not_abbreviated(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    """An abbreviation would mean something else when another option is added."""
    assert main([command, "--hel"]) == 2
    assert capsys.readouterr().err.startswith("fastvit: error: ")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["predict", "CHECKPOINT", "PHOTO", "--out", "x.jsonl", "--json"], "--json prints what --out writes to a file"),
        (
            ["predict", "x.onnx", "PHOTO", "--device", "cuda"],
            "--device is for checkpoints, which run in PyTorch; x.onnx",
        ),
        (["eval", "x.onnx", "--device", "mps"], "--device is for checkpoints"),
        (["eval", "CHECKPOINT", "--json", "--per-class"], "--per-class prints a table, and --json"),
        (["export", "CHECKPOINT", "--calibrate", "8"], "--calibrate is for int8, not for fp32"),
        (["export", "CHECKPOINT", "--keep-float", "x"], "--keep-float is for int8, not for fp32"),
        (["export", "CHECKPOINT", "--verify-with", "PHOTO", "--images", "8"], "--images is about the images of --data"),
        (["export", "CHECKPOINT", "--verify-with", "PHOTO", "--data", "sample"], "--data gives images to verify on"),
        (["fuse", "CHECKPOINT", "--data", "sample"], "--data does not apply to classification"),
        (["fuse", "CHECKPOINT", "--verify-with", "PHOTO"], "--verify-with does not apply to classification"),
        (["fuse", "CHECKPOINT", "--verify-with", "PHOTO", "--data", "x"], "--data gives images to verify on"),
        (["compare", "CHECKPOINT", "--no-latency", "--rounds", "3"], "--rounds is for timing"),
        (["compare", "CHECKPOINT", "--no-latency", "--device", "cpu"], "--device is for timing"),
        (
            ["robustness", "CHECKPOINT", "--suite", "imagenet-a", "--data", "x", "--seed", "0"],
            "--seed is for",
        ),
        (["robustness", "CHECKPOINT", "--suite", "imagenet-r", "--data", "x", "--clean", "y"], "--clean is for"),
        (
            ["robustness", "CHECKPOINT", "--suite", "imagenet-r", "--data", "x", "--corruptions", "fog"],
            "--corruptions",
        ),
        (["robustness", "CHECKPOINT", "--clean", "sample"], "--clean is for the published ImageNet-C"),
        (
            ["robustness", "CHECKPOINT", "--data", "PUBLISHED", "--seed", "0"],
            "--seed is for corruptions that are computed",
        ),
        (["robustness", "x.onnx", "--device", "cuda"], "--device is for checkpoints"),
        (
            ["bench", "CHECKPOINT", "--backends", "fused", "--device", "cpu", "--memory"],
            "--memory is measured",
        ),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, list) else "",
)
def test_an_option_that_does_not_apply_is_an_error(
    checkpoint: Path, photo: Path, tmp_path: Path, arguments: list[str], message: str
) -> None:
    (tmp_path / "fog").mkdir()
    files = {"CHECKPOINT": checkpoint, "PHOTO": photo, "PUBLISHED": tmp_path}
    line = complaint(*(files.get(argument, argument) for argument in arguments), run=inside)
    assert message in line
    assert line.endswith(": leave it out")


@pytest.mark.parametrize("command", COMMANDS)
def test_an_empty_value_is_an_error(command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As an unset shell variable gives it, for each option that takes a value, and for what stands without a name."""
    monkeypatch.chdir(tmp_path)
    parameters = inspect.signature(COMMANDS[command], eval_str=True).parameters.values()
    names = [parameter.name for parameter in parameters if parameter.annotation is not bool]
    if command == "train":
        names = ["recipe", *FIELDS]
    for name in names:
        for empty in ((f"--{name}=",), (f"--{name}", ""), (f"--{name}", " ")):
            assert f"--{name.replace('_', '-')} is empty: give a value, or leave it out" in complaint(
                *command.split(), *empty, run=inside
            )
    assert "argument 1 is empty" in complaint(*command.split(), "", run=inside)
    assert not list(tmp_path.iterdir())


def test_a_mistake_ends_a_process() -> None:
    assert "unknown command 'fly'" in complaint("fly")
    assert "there is no file nowhere.safetensors" in complaint("info", "nowhere.safetensors")


TRAIN = ("train", "--recipe", "quickstart", "--device", "cpu", "--model.size", "32")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A small folder of real images, two classes."""
    from fastvit.data.load import open_images

    for split, name, count in (("train", "train", 32), ("test", "val", 8)):
        pictures = open_images("sample", split)
        for kind in (1, 9):
            chosen = [i for i, label in enumerate(pictures.labels) if label == kind][:count]
            target = tmp_path / "photos" / name / pictures.classes[kind].replace(" ", "_")
            target.mkdir(parents=True)
            for i in chosen:
                pictures.image(i).save(target / f"{i}.png")
    return tmp_path / "photos"


def test_train_on_a_folder_from_end_to_end(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    text = succeeded(*TRAIN, "--data", folder, "--out", out, "--epochs", "2", "--batch_size", "16", run=inside)
    assert "best.safetensors" in text
    model = fastvit.load(out / "best.safetensors")
    assert model.classes == ("Ankle_boot", "Trouser")
    assert fastvit.form(model) == "train"
    with (out / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [float(row["val/top1"]) for row in rows if row["val/top1"]]
    assert "already contains a run" in complaint(*TRAIN, "--data", folder, "--out", out, run=inside)
    result = json.loads(succeeded("eval", out, "--data", folder, "--json", run=inside))
    assert result["images"] == 16
    assert "differ from those of the model" in complaint("eval", out, "--data", "sample", run=inside)


@pytest.mark.slow
def test_training_can_be_interrupted_and_run_again(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    command = [*TRAIN, "--data", str(folder), "--out", str(out), "--batch_size", "16"]
    started = subprocess.Popen(
        [sys.executable, "-m", "fastvit", *command, "--epochs", "1000"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
        # A shell's background job ignores SIGINT, and so would what it starts.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    while not (out / "last.safetensors").exists():
        with pytest.raises(subprocess.TimeoutExpired):  # it must still be running
            started.wait(timeout=0.1)
    started.send_signal(signal.SIGINT)
    _, errors = started.communicate(timeout=120)
    assert started.returncode == 130, errors
    assert "Traceback" not in errors
    assert fastvit.load(out / "last.safetensors").num_classes == 2
    succeeded(*command, "--epochs", "1", "--overwrite", run=inside)


def test_quickstart_from_end_to_end(folder: Path, tmp_path: Path) -> None:
    # Without a compiler in the path torch.compile, which takes long to build, is left out.
    options = ("--data", folder, "--out", tmp_path / "run", "--epochs", "2", "--device", "cpu")
    text = succeeded("quickstart", *options, PATH="")
    assert "torch.compile" not in text
    assert "train form and fused form agree on 16 images" in text
    made = {path.name for path in (tmp_path / "run").iterdir()}
    assert {"best.safetensors", "fused.safetensors", "model.onnx", "report.html", "metrics.csv"} <= made
    report = (tmp_path / "run" / "report.html").read_text()
    for heading in ("Training curves", "Accuracy", "Verification", "Latency", "Predictions", "Confusion matrix"):
        assert f"<h2>{heading}</h2>" in report
    check_page(report)
