"""What a run leaves behind, and the options that change how it trains."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import lightning as L
import pytest
import torch

import fastvit
from fastvit.data.load import open_images
from fastvit.errors import UserError
from fastvit.runs.files import HISTORY, STATE
from fastvit.runs.history import read_history
from fastvit.tasks.table import find_task
from fastvit.training.build import build
from fastvit.training.callbacks import PrintEpochs
from fastvit.training.checkpoint import AtomicCheckpointIO
from fastvit.training.optim import weight_decay
from fastvit.training.recipe import load_recipe
from fastvit.training.run_folder import begin, claim, locked
from fastvit.training.train import Run, train
from tests.training.runs import make_data, recipe


class Watch(L.Callback):
    """Notes the weight decay and the images of every step."""

    def __init__(self) -> None:
        self.decays: list[float] = []
        self.images: list[list[torch.Tensor]] = []

    def on_train_epoch_start(self, *_: object) -> None:
        self.images.append([])

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: object, outputs: object, batch, *_: object) -> None:
        self.images[-1].append(batch[0].sum((1, 2, 3)))
        self.decays.append(max(group["weight_decay"] for group in trainer.optimizers[0].param_groups))


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder a class, one image of them unreadable, and no validation part."""
    root = tmp_path_factory.mktemp("photos")
    sample = open_images("sample", "test")
    for index in range(48):
        folder = root / "abc"[index % 3]
        folder.mkdir(exist_ok=True)
        sample.image(index).save(folder / f"{index}.png")
    (root / "a" / "0.png").write_bytes(b"no image")
    return root


@pytest.fixture(scope="module")
def made(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, Watch]:
    """A run with everything that the others leave out: 36 images, accumulation, bfloat16, schedules, a cool-down."""
    out = tmp_path_factory.mktemp("made") / "run"
    watch = Watch()
    more = (
        *("--val_fraction=0.25", "--accumulate-grad-batches=2", "--precision=bf16-mixed"),
        *(
            "--optim.weight_decay_end=0.2",
            "--optim.cooldown_epochs=1",
            "--optim.layer_decay=0.9",
            "--optim.clip_grad=1",
            "--ema.recalibrate=2",
        ),
        *("--mixup.mixup=0", "--mixup.cutmix=0", "--epochs=2"),
    )
    return train(recipe(photos, out, *more), [watch]), watch


def test_the_folder_has_all_that_is_needed(made: tuple[Run, Watch]) -> None:
    run, _ = made
    names = {path.name for path in run.out.iterdir()}
    weights = {"best.safetensors", "last.safetensors", "trained.safetensors", "recalibrated.safetensors", "last.ckpt"}
    texts = {"recipe.yaml", "environment.json", "metrics.csv", "split.csv", "unreadable.txt"}
    assert names == weights | texts | {"curves.png", "report.html", "tensorboard"}
    assert load_recipe(str(run.out / "recipe.yaml")).accumulate_grad_batches == 2
    assert json.loads((run.out / "environment.json").read_text())["torch"] in torch.__version__
    assert list((run.out / "tensorboard").glob("events*"))
    assert "0.png" in (run.out / "unreadable.txt").read_text()
    assert fastvit.load(run.best).classes == ("a", "b", "c")


def test_epochs_and_steps(made: tuple[Run, Watch]) -> None:
    """36 training images are four batches of eight, two optimizer steps; two epochs and one of cool-down."""
    run, watch = made
    assert AtomicCheckpointIO().load_checkpoint(run.out / STATE)["global_step"] == 6
    first, second, third = (torch.cat(epoch) for epoch in watch.images)
    assert len(first) == len(second) == 32
    assert not torch.equal(first, second)
    assert not torch.equal(second, third)
    settings = load_recipe(str(run.out / "recipe.yaml")).optim
    assert watch.decays == pytest.approx([weight_decay(step // 2, 6, settings) for step in range(12)])
    with (run.out / "metrics.csv").open(newline="") as file:
        losses = [row["train/loss_epoch"] for row in csv.DictReader(file) if row["train/loss_epoch"]]
    assert len(losses) == 3


def test_recalibration_changes_statistics_alone(made: tuple[Run, Watch]) -> None:
    run, _ = made
    averaged, recalibrated = (fastvit.load(run.out / f"{name}.safetensors") for name in ("last", "recalibrated"))
    for (name, ours), theirs in zip(recalibrated.named_parameters(), averaged.parameters(), strict=True):
        assert torch.equal(ours, theirs), name
    means = [(n, b) for n, b in recalibrated.named_buffers() if n.endswith("running_mean")]
    assert any(not torch.equal(b, averaged.get_buffer(n)) for n, b in means)


def test_channels_last() -> None:
    task, _ = build(load_recipe("quickstart", "--model.size=32", "--channels_last=true", "--model.name=t12"))
    weights = [m.weight for m in task.model.modules() if isinstance(m, torch.nn.Conv2d)]
    assert all(w.is_contiguous(memory_format=torch.channels_last) for w in weights)


def test_a_folder_is_cleared_of_runs_alone(tmp_path: Path) -> None:
    """Everything goes that a run left, and what was measured of it; nothing else."""
    (tmp_path / "metrics.csv").write_text("mine")
    with pytest.raises(UserError, match=r"cannot create the folder .*metrics.csv/run: Not a directory"):
        claim(recipe(tmp_path, tmp_path / "metrics.csv" / "run"))
    asked = recipe(tmp_path, tmp_path)
    with pytest.raises(UserError, match=r"contains metrics\.csv, which is not from a run"):
        claim(asked)
    (tmp_path / "metrics.csv").unlink()
    _, data = build(load_recipe("quickstart", "--val_fraction=0.1"))
    (tmp_path / "recipe.yaml").write_text("of the run before")
    derived = (
        *("best-fused.safetensors", "best-export/model.onnx", "best-fused-export/model.onnx", "[1]-export/model.onnx"),
        *("last-fused.safetensors", "best-imagenet-c/robustness.json", "last-imagenet-a/robustness.html"),
    )
    files = (
        *("best.safetensors", "evaluation.json", "split.csv", "tensorboard/events", "unreadable.txt"),
        *("damaged.txt", *derived),  # as an older version called the one before
    )
    mine = (
        *("notes.txt", "plots/a.png", "other/best.safetensors", "other/robustness.json", "[1].safetensors"),
        *("photos-export/recipe.yaml", "photos-export/best.safetensors"),
    )
    for name in (*files, *mine):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("old")
    with pytest.raises(UserError, match="already contains a run"):
        claim(asked)
    asked.overwrite = True
    claim(asked)
    begin(asked, data)
    left = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file())
    assert left == sorted(["environment.json", "recipe.yaml", "split.csv", *mine])
    assert "old" not in (tmp_path / "split.csv").read_text()


def test_what_a_command_might_have_made_is_not_removed_unasked(tmp_path: Path) -> None:
    """A recipe without a checkpoint is of a run that was ended early: no command made anything from it."""
    (tmp_path / "recipe.yaml").write_text("epochs: 1")
    (tmp_path / "metrics.csv").write_text("epoch,step")
    claim(recipe(tmp_path, tmp_path))
    (tmp_path / "best-export").mkdir()
    with pytest.raises(UserError, match=r"contains best-export, which is not from a run: .*--overwrite"):
        claim(recipe(tmp_path, tmp_path))


def test_two_runs_do_not_share_a_folder(tmp_path: Path) -> None:
    with locked(tmp_path), pytest.raises(UserError, match="another process is training in"), locked(tmp_path):
        pass
    with locked(tmp_path):
        assert (tmp_path / ".lock").exists()
    assert not list(tmp_path.iterdir())


def test_what_cannot_start_costs_nothing_and_can_be_mended(photos: Path, tmp_path: Path) -> None:
    """A mistake that shows only when the network is built: the run that is there stays, a new one begins afterwards."""
    run = tmp_path / "run"
    more = ("--val_fraction=0.25", "--epochs=1", "--optim.warmup_epochs=0")
    for wrong in ("--distillation.teacher=no_such_model", "--wandb=none"):
        with pytest.raises(UserError, match=r"teacher no_such_model does not exist|wandb"):
            train(recipe(photos, run, *more, wrong))
    train(recipe(photos, run, *more))
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    for wrong in ("--distillation.teacher=no_such_model", "--wandb=none", "--data=nowhere"):
        with pytest.raises(UserError, match=r"wandb|does not exist"):
            train(recipe(photos, run, *more, wrong, "--overwrite=true"))
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before


def test_unreadable_validation_images_can_be_skipped(photos: Path, tmp_path: Path) -> None:
    shutil.copytree(photos, tmp_path / "val")
    (tmp_path / "train").symlink_to(photos)
    more = ("--epochs=1", "--optim.warmup_epochs=0")
    with pytest.raises(UserError, match=r"0\.png"):
        train(recipe(tmp_path, tmp_path / "run", *more))
    with pytest.warns(UserWarning, match=r"val/a/0\.png.* it is skipped"):
        train(recipe(tmp_path, tmp_path / "run", *more, "--skip-unreadable=true", "--overwrite=true"))


def test_too_many_unreadable_images_end_the_run(photos: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"1 unreadable training image, more than max_unreadable \(0\).*0\.png"):
        train(recipe(photos, tmp_path / "run", "--val_fraction=0.25", "--max-unreadable=0"))


def test_a_full_disk_is_one_line_and_costs_nothing(tmp_path: Path) -> None:
    """A checkpoint that does not fit leaves the one before as it was."""
    import resource

    state = tmp_path / STATE
    AtomicCheckpointIO().save_checkpoint({"step": 1}, state)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))
    try:
        with pytest.raises(UserError, match=r"cannot write .*last\.ckpt"):
            AtomicCheckpointIO().save_checkpoint({"step": 2, "weights": torch.zeros(10_000)}, state)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert AtomicCheckpointIO().load_checkpoint(state) == {"step": 1}
    assert [path.name for path in tmp_path.iterdir()] == [STATE]


def test_divergence_names_the_last_good_checkpoint(tmp_path: Path) -> None:
    data = make_data(tmp_path / "data")
    with pytest.raises(
        UserError, match=r"loss is \w+ at step \d+ \(learning rate .*the last good checkpoint is .*last\.ckpt"
    ):
        train(recipe(data, tmp_path / "run", "--optim.lr=1e18", "--optim.warmup_epochs=1", "--checkpoint_every=1"))


@pytest.mark.slow
def test_compiled_training_is_saved_as_plain(tmp_path: Path) -> None:
    data = make_data(tmp_path / "data")
    run = train(recipe(data, tmp_path / "run", "--compile=true", "--epochs=2"))
    assert fastvit.load(run.best)(torch.randn(1, 3, 32, 32)).shape == (1, 3)


def test_epochs_can_be_printed_as_lines(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A line for each epoch, with the values of metrics.csv; notebooks get it instead of the progress bar."""
    run = train(recipe(make_data(tmp_path / "data"), tmp_path / "run"), [PrintEpochs(find_task("classification"))])
    lines = [line for line in capsys.readouterr().out.splitlines() if ": training loss" in line]
    series = read_history(run.out / HISTORY).series
    assert [line.partition(":")[0] for line in lines] == ["epoch 1/2", "epoch 2/2"]
    for line, (_, loss), (_, top1) in zip(lines, series["train/loss"], series["val/top1"], strict=True):
        assert f": training loss {loss:.4f}, " in line
        assert f"validation top-1 {top1:.2%}" in line
