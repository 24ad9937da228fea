"""A run that was ended, however it was, goes on to what it would have been."""

from __future__ import annotations

import csv
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from fastvit.errors import UserError
from fastvit.training.checkpoint import STATE, AtomicCheckpointIO, Terminated, rewind_metrics
from fastvit.training.recipe import parse_recipe, recipe_parser
from fastvit.training.train import train
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


def resume(run: Path, *more: str) -> None:
    train(parse_recipe(recipe_parser(), ["--resume", str(run), *more]))


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
    with pytest.raises(UserError, match=r"holds a run already: --resume"):
        train(recipe(data, run))
    resume(run, "--workers=1")
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
    made = r"inside epoch 1, .* batch_size 8, processes 1, images 40, seed 0; now it would be batch_size 10"
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
        with pytest.raises(UserError, match=r"last\.ckpt is no checkpoint that can be read"):
            rewind_metrics(tmp_path)
    torch.save({"weights": torch.zeros(1)}, tmp_path / STATE)
    with pytest.raises(UserError, match=r"last\.ckpt is not a checkpoint that fastvit train wrote"):
        rewind_metrics(tmp_path)


def test_a_checkpoint_cut_short_is_named(data: Path, whole: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / "recipe.yaml").write_text((whole / "recipe.yaml").read_text())
    (run / STATE).write_bytes((whole / STATE).read_bytes()[:100_000])
    with pytest.raises(UserError, match=r"last\.ckpt is no checkpoint that can be read"):
        resume(run)


def test_resuming_what_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no run to resume in .*nothing"):
        resume(tmp_path / "nothing")


@pytest.mark.slow
def test_sigterm_to_the_command(data: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    command = [sys.executable, "-m", "fastvit", "train", "--recipe=quickstart", *options(data, run)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr
        for line in process.stderr:
            if "40 training and 12 held-out images" in line:
                break
        process.send_signal(signal.SIGTERM)
        rest = process.stderr.read()
    assert process.returncode == 143, rest
    assert f"fastvit: ended after step 1; go on with: fastvit train --resume {run}" in rest
    assert (run / STATE).exists()
