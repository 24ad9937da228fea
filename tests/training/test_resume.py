"""A run that was ended, however it was, goes on to what it would have been."""

from __future__ import annotations

import copy
import csv
import importlib.util
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
import yaml
from safetensors.torch import load_file

from fastvit.cli.main import main
from fastvit.collapse import collapse_mode
from fastvit.errors import UserError
from fastvit.renames import FIELDS, VALUES
from fastvit.runs.files import STATE
from fastvit.runs.settings import flatten
from fastvit.training.checkpoint import AtomicCheckpointIO, Terminated, check_state
from fastvit.training.optim import learning_rate
from fastvit.training.options import Recipe
from fastvit.training.recipe import dump_recipe, load_recipe, parse_recipe
from fastvit.training.resume import CHANGEABLE, refuse_changes
from fastvit.training.train import train
from tests.helpers import make_folder, nested
from tests.training.runs import SignalAt, make_data, options, recipe

KILLED = """
import sys, torch
from pathlib import Path
from fastvit.training.train import train
from tests.training.runs import SignalAt, recipe
torch.set_num_threads(int(sys.argv[3]))
train(recipe(Path(sys.argv[1]), Path(sys.argv[2])), [SignalAt(7)])
"""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_data(tmp_path_factory.mktemp("resume") / "data")


@pytest.fixture(scope="module")
def whole(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two epochs, five steps each, that nothing happened to."""
    out = tmp_path_factory.mktemp("whole") / "run"
    train(recipe(data, out))
    return out


def rows(run: Path) -> list[dict[str, str]]:
    with (run / "metrics.csv").open(newline="") as file:
        return [{k: v for k, v in row.items() if k != "train/images_per_second"} for row in csv.DictReader(file)]


def assert_same(run: Path, whole: Path) -> None:
    """Every tensor of weights, averages and optimizer bit for bit, and every number logged."""
    for name in ("best", "last", "trained"):
        ours, theirs = (load_file(folder / f"{name}.safetensors") for folder in (run, whole))
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[key], theirs[key]) for key in ours), name
    ours, theirs = (AtomicCheckpointIO().load_checkpoint(folder / STATE) for folder in (run, whole))
    for index, state in theirs["optimizer_states"][0]["state"].items():
        assert all(torch.equal(ours["optimizer_states"][0]["state"][index][k], v) for k, v in state.items())
    assert ours["global_step"] == theirs["global_step"]
    assert rows(run) == rows(whole)


def resume(run: Path, *more: str, callbacks: tuple[L.Callback, ...] = ()) -> None:
    train(parse_recipe(["--resume", str(run), *more]), callbacks)


def files(run: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}


def test_killed_inside_an_epoch(data: Path, whole: Path, tmp_path: Path) -> None:
    """SIGKILL before the eighth of ten steps; the last checkpoint is of step 6, the second epoch's first."""
    run = tmp_path / "run"
    command = [sys.executable, "-c", KILLED, str(data), str(run), str(torch.get_num_threads())]
    ended = subprocess.run(command, capture_output=True, text=True)
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    assert AtomicCheckpointIO().load_checkpoint(run / STATE)["global_step"] == 6
    with (run / "metrics.csv").open("a") as file:
        file.write("1,7,0.1,half a li")  # what a kill or a full disk may leave
    (run / ".last.ckpt.x.part").write_bytes(b"half a checkpoint")
    with pytest.raises(UserError, match=r"already contains a run: resume it with --resume"):
        train(recipe(data, run))
    resume(run, "--num-workers=1")
    assert_same(run, whole)
    assert not list(run.glob(".*"))


@pytest.mark.parametrize("step", [3, *(pytest.param(step, marks=pytest.mark.slow) for step in (4, 5))])
def test_sigterm_ends_between_two_steps(data: Path, whole: Path, tmp_path: Path, step: int) -> None:
    """Inside the first epoch, before its last batch, and before the first of the second."""
    run = tmp_path / "run"
    handler = signal.getsignal(signal.SIGTERM)
    with pytest.raises(Terminated, match="after epoch 1" if step == 4 else f"after step {step + 1}"):
        train(recipe(data, run), [SignalAt(step, signal.SIGTERM)])
    assert signal.getsignal(signal.SIGTERM) == handler
    resume(run)
    assert_same(run, whole)


def test_a_run_of_before_version_0_2_goes_on_inside_an_epoch(data: Path, whole: Path, tmp_path: Path) -> None:
    """Its recipe, and the recipe and the callbacks in its state, have old names."""
    run = tmp_path / "run"
    with pytest.raises(Terminated):
        train(recipe(data, run), [SignalAt(3, signal.SIGTERM)])
    old_names = {new: old for old, new in FIELDS.items()}
    old_values = {old: {new: value for value, new in values.items()} for old, values in VALUES.items()}

    def old(fields: dict[str, Any]) -> dict[str, Any]:
        named = {old_names.get(name, name): value for name, value in fields.items()}
        return {
            name: old_values[name].get(value, value) if name in old_values else value for name, value in named.items()
        }

    (run / "recipe.yaml").write_text(
        yaml.safe_dump(nested(old(flatten(yaml.safe_load((run / "recipe.yaml").read_text())))))
    )
    state = torch.load(run / STATE, weights_only=True)
    assert state["recipe"].keys() & old_names.keys()
    state["recipe"] = old(state["recipe"])
    del state["callbacks"]["UnreadableImages"]
    state["callbacks"]["DamagedImages"] = {"found": {"gone.png": "cut short"}}
    torch.save(state, run / STATE)
    with pytest.warns(UserWarning, match="uses old field names") as given:
        resume(run)
    assert len([each for each in given if "is now called" in str(each.message)]) == 1
    assert_same(run, whole)
    assert (run / "unreadable.txt").read_text() == "gone.png\tcut short\n"
    assert not flatten(yaml.safe_load((run / "recipe.yaml").read_text())).keys() & old_names.values()


def test_an_old_state_of_another_recipe_is_refused(whole: Path, tmp_path: Path) -> None:
    """Under its new name."""
    run = Path(shutil.copytree(whole, tmp_path / "run"))
    state = torch.load(run / STATE, weights_only=True)
    state["recipe"]["mixing.smoothing"] = state["recipe"].pop("mixup.label_smoothing") / 2
    torch.save(state, run / STATE)
    with pytest.raises(UserError, match=r"it changes mixup\.label_smoothing from 0\.05 to 0\.1; restore"):
        resume(run, "--epochs=3")


@pytest.mark.slow
@pytest.mark.parametrize("again", [True, False])
def test_killed_before_the_first_checkpoint(data: Path, whole: Path, tmp_path: Path, again: bool) -> None:
    """Begun again by the same command, or resumed: nothing of the first attempt is left."""
    run = tmp_path / "run"
    with pytest.raises(Terminated):
        train(recipe(data, run), [SignalAt(0, signal.SIGTERM)])
    (run / STATE).unlink()
    (run / "metrics.csv").write_text("epoch,step\n0,0\n")
    train(recipe(data, run)) if again else resume(run)
    assert_same(run, whole)


def test_other_batches_inside_an_epoch_are_refused(data: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    with pytest.raises(Terminated):
        train(recipe(data, run), [SignalAt(1, signal.SIGTERM)])
    kept = (run / "recipe.yaml").read_text()
    made = r"within epoch 1, .* batch_size 8, processes 1, images 40, seed 0; now .* composed with batch_size 10"
    with pytest.raises(UserError, match=made):
        resume(run, "--batch_size=10")
    assert (run / "recipe.yaml").read_text() == kept


@pytest.mark.slow
def test_resuming_a_run_that_is_complete_changes_nothing(data: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    train(recipe(data, run, "--epochs=1", "--optim.warmup_epochs=0", "--ema.recalibrate=2"))
    before = {name: (run / f"{name}.safetensors").read_bytes() for name in ("best", "last", "trained")}
    recalibrated = load_file((run / "recalibrated.safetensors").rename(tmp_path / "first.safetensors"))
    resume(run)
    assert all((run / f"{name}.safetensors").read_bytes() == content for name, content in before.items())
    again = load_file(run / "recalibrated.safetensors")
    assert all(torch.equal(again[key], value) for key, value in recalibrated.items())


def test_what_is_no_checkpoint_is_named(tmp_path: Path) -> None:
    for content in (b"letters", b""):
        (tmp_path / STATE).write_bytes(content)
        with pytest.raises(UserError, match=r"last\.ckpt is not a readable checkpoint"):
            check_state(tmp_path)
    torch.save({"weights": torch.zeros(1)}, tmp_path / STATE)
    with pytest.raises(UserError, match=r"last\.ckpt was not written by fastvit train"):
        check_state(tmp_path)


def test_a_checkpoint_cut_short_is_named(data: Path, whole: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / "recipe.yaml").write_text((whole / "recipe.yaml").read_text())
    (run / STATE).write_bytes((whole / STATE).read_bytes()[:100_000])
    with pytest.raises(UserError, match=r"last\.ckpt is not a readable checkpoint"):
        resume(run)


def test_resuming_what_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="has no option --res: did you mean --resume"):
        parse_recipe([f"--res={tmp_path}"])
    with pytest.raises(UserError, match=r"nothing does not contain a run to resume"):
        resume(tmp_path / "nothing")


@pytest.mark.slow
def test_sigterm_to_the_command(data: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    command = [sys.executable, "-m", "fastvit", "train", "--recipe=quickstart", *options(data, run)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr
        for line in process.stderr:
            if "40 training and 12 validation images" in line:
                break
        process.send_signal(signal.SIGTERM)
        rest = process.stderr.read()
    assert process.returncode == 143, rest
    assert f"fastvit: stopped after step 1; resume with: fastvit train --resume {run}" in rest
    assert (run / STATE).exists()


# What is changed on the line: its options, and whether a trainer and its task have it.
Probe = Callable[[Any, Any, Path], bool]
CHANGES: dict[str, tuple[str, Probe]] = {
    "data": ("--data={copy}", lambda trainer, task, copy: copy.name in trainer.datamodule.train_images.name(0)),
    "skip_unreadable": ("--skip-unreadable=true", lambda trainer, *_: trainer.val_dataloaders.dataset.skip_unreadable),
    "max_unreadable": ("--max-unreadable=7", lambda trainer, *_: callback(trainer, "UnreadableImages").limit == 7),
    "num_workers": ("--num-workers=1", lambda trainer, *_: trainer.train_dataloader.num_workers == 1),
    # Together the images of a step are as many as before.
    "batch_size": ("--batch_size=4", lambda trainer, *_: len(next(iter(trainer.train_dataloader.batch_sampler))) == 4),
    "accumulate_grad_batches": (
        "--accumulate-grad-batches=2",
        lambda trainer, *_: trainer.accumulate_grad_batches == 2,
    ),
    "precision": ("--precision=bf16-mixed", lambda trainer, *_: trainer.precision == "bf16-mixed"),
    "compile": ("--compile=true", lambda trainer, task, _: task.model._compiled_call_impl is not None),
    "channels_last": (
        "--channels_last=true",
        lambda trainer, task, _: any(is_channels_last(w) for w in task.parameters()),
    ),
    "model.collapse_branches": (
        "--model.collapse-branches=never",
        lambda trainer, task, _: collapse_mode(task.model) == "never",
    ),
    "epochs": ("--epochs=3", lambda trainer, *_: (trainer.max_epochs, trainer.estimated_stepping_batches) == (3, 15)),
    "optim.clip_grad": ("--optim.clip_grad=0.5", lambda trainer, *_: trainer.gradient_clip_val == 0.5),
    "checkpoint_every": ("--checkpoint_every=3", lambda trainer, *_: callback(trainer, "SaveState").every == 3),
}
# What cannot be had here is refused for that reason, and not for being changed.
NEEDS = {
    "device": ("--device=cuda", "cuda"),
    "devices": ("--devices=2", "SLURM has started one process, the recipe is for 2"),
    "num_nodes": ("--num-nodes=2", "SLURM has started one process, the recipe is for 2"),
    "wandb": ("--wandb=mine", "wandb=mine needs Weights & Biases"),
}


def callback(trainer: L.Trainer, name: str) -> Any:
    return next(each for each in trainer.callbacks if type(each).__name__ == name)


def is_channels_last(weight: torch.Tensor) -> bool:
    """Of a convolution of several pixels, whose other strides tell even where it has one channel."""
    return weight.ndim == 4 and weight.shape[2] > 1 and weight.stride(1) == 1


class Stop(Exception):  # noqa: N818
    """Ends a run when it has been looked at."""


class Look(L.Callback):
    """Notes which changes have taken effect when training goes on, and the learning rate of every step."""

    def __init__(self, names: list[str], copy: Path, stop: bool = False) -> None:
        self.names, self.copy, self.stop = names, copy, stop
        self.effective: dict[str, bool] = {}
        self.rates: list[float] = []

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.effective = {name: CHANGES[name][1](trainer, pl_module, self.copy) for name in self.names}
        if self.stop:
            raise Stop

    def on_train_batch_start(self, trainer: L.Trainer, *_: object) -> None:
        self.rates.append(trainer.optimizers[0].param_groups[0]["lr"])


def test_each_field_that_may_be_changed_takes_effect(data: Path, whole: Path, tmp_path: Path) -> None:
    assert CHANGES.keys() | NEEDS.keys() == CHANGEABLE
    run, moved = shutil.copytree(whole, tmp_path / "run"), shutil.copytree(data, tmp_path / "copy")
    for names in (["compile", "epochs"], [name for name in CHANGES if name != "compile"]):
        look = Look(names, moved, stop="compile" in names)
        line = [CHANGES[name][0].format(copy=moved) for name in names]
        if look.stop:
            with pytest.raises(Stop):
                resume(shutil.copytree(whole, tmp_path / "compiled"), *line, callbacks=(look,))
        else:
            resume(run, *line, callbacks=(look,))
        assert look.effective == dict.fromkeys(names, True)
    written = load_recipe(str(run / "recipe.yaml"))
    assert (written.epochs, written.batch_size, written.accumulate_grad_batches, written.data) == (3, 4, 2, str(moved))
    assert [row["epoch"] for row in rows(run) if row["val/top1"]] == ["0", "1", "2"]
    # Every second batch makes a step: of steps 10 to 14 of 15, by the schedule of three epochs.
    expected = [learning_rate(step, 15, 5, written.optim) for step in range(10, 15)]
    assert look.rates[::2] == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("name", NEEDS)
def test_what_cannot_be_had_is_refused_for_that(
    name: str, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    option, message = NEEDS[name]
    if (name == "device" and torch.cuda.is_available()) or (name == "wandb" and importlib.util.find_spec("wandb")):
        pytest.skip("it can be had here")
    monkeypatch.delenv("SLURM_JOB_NAME", raising=False)
    if "SLURM" in message:
        monkeypatch.setenv("SLURM_NTASKS", "1")
    before = files(whole)
    with pytest.raises(UserError, match=message):
        resume(whole, option)
    assert files(whole) == before


def test_every_other_field_is_refused_by_name(tmp_path: Path) -> None:
    own = Recipe(out=tmp_path, resume=tmp_path)
    (tmp_path / "recipe.yaml").write_text(dump_recipe(Recipe(out=tmp_path)))
    refuse_changes(own)
    fields = flatten(own.to_dict()).keys() | {"num_workers"}
    assert fields > CHANGEABLE
    for field in fields:
        changed = copy.deepcopy(own)
        *path, last = field.split(".")
        owner: Any = changed
        for part in path:
            owner = getattr(owner, part)
        object.__setattr__(owner, last, "changed")  # some are frozen
        if field in CHANGEABLE:
            refuse_changes(changed)
            continue
        with pytest.raises(UserError, match=rf"cannot change {field} from .* to changed: .* --recipe .*") as refused:
            refuse_changes(changed)
        # With another split the weights may have been trained on images that are held out from then on.
        assert ("--model.weights" in str(refused.value)) == (field not in ("seed", "val_fraction"))
    changed = copy.deepcopy(own)
    changed.data, changed.optim.lr = "other", 0.5
    with pytest.raises(UserError, match=r"cannot change optim\.lr from .* to 0\.5: .*recipe\.yaml --out OTHER"):
        refuse_changes(changed)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ("--optim.lr=0.5",),
            "cannot change optim.lr from 0.001 to 0.5: leave that out, or start a new run with --recipe",
        ),
        (("--seed=1", "--model.name=sa12"), "cannot change model.name from fastvit_t8 to sa12, seed from 0 to 1"),
        (
            ("--epochs=3", "--batch_size=10"),
            "the run is at step 10, but would be at step 8 with the current settings, 4 per epoch",
        ),
        (
            ("--epochs=3", "--accumulate-grad-batches=2"),
            "the run is at step 10, but would be at step 6 with the current settings, 3 per epoch",
        ),
        (("--epochs=1", "--optim.warmup_epochs=1"), "optim.warmup_epochs (1.0) must be less than epochs (1)"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, tuple) else "",
)
def test_a_change_that_is_refused_leaves_the_run_as_it_was(
    whole: Path, capsys: pytest.CaptureFixture[str], options: tuple[str, ...], message: str
) -> None:
    before = files(whole)
    assert main(["train", "--resume", str(whole), *options]) == 2
    errors = capsys.readouterr().err
    assert message in errors.splitlines()[-1]
    assert "Traceback" not in errors
    assert changed_files(whole, before) == set()


def changed_files(run: Path, before: dict[Path, bytes]) -> set[Path]:
    after = files(run)
    return {path for path in before if "tensorboard" not in path.parts and before[path] != after.get(path)}


def test_a_run_that_does_not_go_on_keeps_what_was_logged_after_its_state(whole: Path, tmp_path: Path) -> None:
    run = shutil.copytree(whole, tmp_path / "run")
    line = (run / "metrics.csv").read_text().splitlines()[-1] + "\n"
    with (run / "metrics.csv").open("a") as file:
        file.write(line)
    before = files(run)
    with pytest.raises(UserError, match="would be at step 8"):
        resume(run, "--epochs=3", "--batch_size=10")
    assert changed_files(run, before) == set()
    with pytest.raises(Stop):
        resume(run, "--epochs=3", callbacks=(Look([], run, stop=True),))
    assert rows(run) == rows(whole)


def test_a_recipe_that_was_edited_is_refused_by_field(whole: Path, tmp_path: Path) -> None:
    run = shutil.copytree(whole, tmp_path / "run")
    text = (run / "recipe.yaml").read_text()
    for old, new in (("  lr: 0.001\n", "  lr: 0.5\n"), ("\nseed: 0\n", "\nseed: 1\n")):
        assert text.count(old) == 1
        text = text.replace(old, new)
    (run / "recipe.yaml").write_text(text)
    before = files(run)
    for more in ("--epochs=3", "--num-workers=0"):
        with pytest.raises(
            UserError, match=r"recipe\.yaml is not .* changes optim\.lr from 0\.001 to 0\.5, seed from 0 to 1;"
        ):
            resume(run, more)
    assert changed_files(run, before) == set()
    state = AtomicCheckpointIO().load_checkpoint(run / STATE)
    del state["recipe"]  # as in a checkpoint of an older version
    torch.save(state, run / STATE)
    with pytest.raises(Stop):
        resume(run, "--epochs=3", callbacks=(Look([], run, stop=True),))


def test_epochs_that_have_all_been_made_are_written_down(whole: Path, tmp_path: Path) -> None:
    """A run that was ended after two epochs of three, and is to end there."""
    run = shutil.copytree(whole, tmp_path / "run")
    text = (run / "recipe.yaml").read_text()
    (run / "recipe.yaml").write_text(text.replace("\nepochs: 2\n", "\nepochs: 3\n"))
    before = files(run)
    with pytest.raises(UserError, match="would be at step 8"):
        resume(run, "--epochs=2", "--batch_size=10")
    assert changed_files(run, before) == set()
    resume(run, "--epochs=2")
    written = load_recipe(str(run / "recipe.yaml"))
    assert written.epochs == 2
    assert rows(run) == rows(whole)


def test_fewer_epochs_than_were_made_are_refused(data: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    train(recipe(data, run, "--optim.warmup_epochs=0"))
    with pytest.raises(UserError, match="has finished 2 epochs, more than the 1 of the recipe"):
        resume(run, "--epochs=1")
    assert load_recipe(str(run / "recipe.yaml")).epochs == 2


def test_data_of_other_classes_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As many classes as before by other names, and more; also of a checkpoint that does not name its classes."""
    first, renamed, more = (
        make_folder(tmp_path / name, classes, ("train", "val"))
        for name, classes in {"first": ("a", "b"), "renamed": ("a", "c"), "more": ("a", "b", "c")}.items()
    )
    run = tmp_path / "run"
    train(recipe(first, run, "--epochs=1", "--optim.warmup_epochs=0", "--batch_size=2"))
    kept = (run / "recipe.yaml").read_text()
    for other, named in ((renamed, "added 1: c and removed 1: b;"), (more, "added 1: c;")):
        assert main(["train", "--resume", str(run), "--epochs=2", f"--data={other}"]) == 2
        errors = capsys.readouterr().err
        assert f"the classes of the data are not those that the run started with: {named}" in errors.splitlines()[-1]
        assert "Traceback" not in errors
    state = AtomicCheckpointIO().load_checkpoint(run / STATE)
    del state["classes"]
    torch.save(state, run / STATE)
    with pytest.raises(UserError, match=r"the network is not the one .*model\.head.* \(3, .* in the run \(2, "):
        resume(run, "--epochs=2", f"--data={more}")
    assert (run / "recipe.yaml").read_text() == kept


def test_a_run_with_a_split_goes_on_with_a_copy_of_its_data(data: Path, tmp_path: Path) -> None:
    run, moved = tmp_path / "run", tmp_path / "moved"
    train(recipe(data, run, "--epochs=1", "--optim.warmup_epochs=0", "--val_fraction=0.3"))
    resume(run, f"--data={shutil.copytree(data, moved)}", "--epochs=2")
    assert load_recipe(str(run / "recipe.yaml")).data == str(moved)
    assert main(["eval", str(run), "--num-workers=0", "--json"]) == 0
    (run / "split.csv").unlink()
    before = files(run)
    with pytest.raises(UserError, match=r"run/split\.csv, .*, does not exist: restore it, or start a new run"):
        resume(run, "--epochs=3")
    assert files(run) == before
