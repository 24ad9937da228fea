"""Several processes train what one does with the same global batch."""

from __future__ import annotations

import csv
import os
import signal
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from fastvit.data.load import open_images
from fastvit.errors import UserError
from fastvit.training.processes import with_processes
from fastvit.training.recipe import load_recipe
from fastvit.training.train import train
from tests.training.runs import make_data, options, recipe

# What differs between processes by design is off: mixup pairs the images of a process, noise is of a process. Adam
# makes steps of the learning rate's size from gradients that are nothing but rounding, so that is small.
QUIET = (
    *("--mixup.mixup=0", "--mixup.cutmix=0", "--augmentation.random_erasing=0", "--model.drop_path=0"),
    *("--optim.lr=1e-6", "--optim.min_lr=1e-7", "--model.size=64", "--ema.recalibrate=1"),
)
TWO = ("--batch_size=4", "--batchnorm=sync", *QUIET)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_data(tmp_path_factory.mktemp("processes") / "data", test=11)


@pytest.fixture(scope="module")
def alone(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("alone") / "run"
    train(recipe(data, out, "--batch_size=8", *QUIET))
    return out


def curve(run: Path) -> dict[str, list[float]]:
    with (run / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    names = ("train/loss", "train/loss_epoch", "val/loss", "val/top1", "train/lr")
    return {name: [float(row[name]) for row in rows if row[name]] for name in names}


def assert_equal(run: Path, alone: Path) -> None:
    ours, theirs = curve(run), curve(alone)
    assert len(theirs["train/loss_epoch"]) == 2
    for name, values in theirs.items():
        assert ours[name] == pytest.approx(values, rel=1e-4), name
    ours_state, their_state = (load_file(folder / "trained.safetensors") for folder in (run, alone))
    for key, value in their_state.items():
        if value.is_floating_point():
            torch.testing.assert_close(ours_state[key], value, rtol=1e-4, atol=2e-5, msg=key)


def command(*arguments: str) -> list[str]:
    return [sys.executable, *arguments, "train", "--recipe=quickstart"]


def environment(**more: str) -> dict[str, str]:
    return {**os.environ, **more}


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@pytest.mark.slow
def test_two_machines(data: Path, alone: Path, tmp_path: Path) -> None:
    """As torchrun starts them, one process each, which meet at an address that is not the first one's own."""
    run = tmp_path / "run"
    port = str(free_port())
    processes = []
    for rank in ("0", "1"):
        world = {"TORCHELASTIC_RUN_ID": "1", "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "1", "LOCAL_RANK": "0"}
        place = {"RANK": rank, "GROUP_RANK": rank, "MASTER_ADDR": "127.0.0.2", "MASTER_PORT": port}
        line = [*command("-m", "fastvit"), *options(data, run, *TWO)]
        processes.append(subprocess.Popen(line, env=environment(**world, **place), stderr=subprocess.PIPE, text=True))
    for process in processes:
        _, said = process.communicate()
        assert process.returncode == 0, said
    assert_equal(run, alone)
    assert (run / "recalibrated.safetensors").exists()
    written = load_recipe(str(run / "recipe.yaml"))
    assert (written.devices, written.num_nodes) == (1, 2)


def test_processes_are_those_that_were_started(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = load_recipe("imagenet-sa12")
    assert (asked.devices, asked.num_nodes) == (8, 1)
    for name in ("TORCHELASTIC_RUN_ID", "SLURM_NTASKS", "SLURM_JOB_NAME"):
        monkeypatch.delenv(name, raising=False)
    assert with_processes(asked) == asked
    with pytest.raises(UserError, match="num_nodes is 2: start a process on each machine with torchrun or srun"):
        with_processes(replace(asked, num_nodes=2))
    for name, value in {"SLURM_NTASKS": "32", "SLURM_NNODES": "4"}.items():
        monkeypatch.setenv(name, value)
    assert with_processes(asked) == replace(asked, num_nodes=4)
    monkeypatch.setenv("SLURM_NTASKS", "1")
    with pytest.raises(
        UserError, match=r"SLURM has started one process, the recipe is for 8: start them with srun --ntasks-per-node"
    ):
        with_processes(asked)
    monkeypatch.setenv("SLURM_JOB_NAME", "bash")
    assert with_processes(asked) == asked, "a job's interactive shell"
    for name, value in {"TORCHELASTIC_RUN_ID": "1", "WORLD_SIZE": "6", "LOCAL_WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    assert with_processes(asked) == replace(asked, devices=2, num_nodes=3)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two of 24 images are unreadable; with a batch a process, each process meets one or both."""
    root = tmp_path_factory.mktemp("photos")
    sample = open_images("sample", "test")
    for index in range(32):
        folder = root / ("train" if index < 24 else "val") / "ab"[index % 2]
        folder.mkdir(exist_ok=True, parents=True)
        sample.image(index).save(folder / f"{index}.png")
    for name in ("a/0.png", "b/1.png"):
        (root / "train" / name).write_bytes(b"no image")
    return root


@pytest.mark.slow
@pytest.mark.parametrize("limit", [2, 0])
def test_unreadable_images_of_all_processes_count(photos: Path, tmp_path: Path, limit: int) -> None:
    """Above the limit the run ends in every process, the one that met no unreadable image too."""
    more = ("--batch_size=6", "--devices=2", f"--max-unreadable={limit}", "--epochs=1", "--optim.warmup_epochs=0")
    line = [*command("-m", "fastvit"), *options(photos, tmp_path / "run", *more)]
    done = subprocess.run(line, env=environment(), capture_output=True, text=True, timeout=300)
    if limit:
        assert done.returncode == 0, done.stderr
        listed = (tmp_path / "run" / "unreadable.txt").read_text().splitlines()
        assert {Path(line.split("\t")[0]).name for line in listed} == {"0.png", "1.png"}
    else:
        assert done.returncode != 0
        assert ", more than max_unreadable (0)" in done.stderr


@pytest.mark.slow
def test_two_devices_are_told_to_end(data: Path, tmp_path: Path) -> None:
    """SIGTERM to the first process of two, as it comes from a job system; the run goes on to the end afterwards."""
    run = tmp_path / "run"
    line = [*command("-m", "fastvit"), *options(data, run, *TWO, "--devices=2")]
    with subprocess.Popen(line, env=environment(), stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr
        for text in process.stderr:
            if "40 training and 11 validation images" in text:
                break
        process.send_signal(signal.SIGTERM)
        rest = process.stderr.read()
    assert process.returncode == 143, rest
    resumed = subprocess.run(
        command("-m", "fastvit")[:-1] + ["--resume", str(run)], env=environment(), capture_output=True, text=True
    )
    assert resumed.returncode == 0, resumed.stderr
    assert len(curve(run)["train/loss_epoch"]) == 2


@pytest.mark.slow
def test_two_devices_of_one_machine(data: Path, alone: Path, tmp_path: Path) -> None:
    line = [*command("-m", "fastvit"), *options(data, tmp_path / "run", *TWO), "--devices=2"]
    done = subprocess.run(line, env=environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert_equal(tmp_path / "run", alone)


@pytest.mark.slow
def test_torchrun_over_two_addresses(data: Path, alone: Path, tmp_path: Path) -> None:
    port = free_port()
    processes = []
    for rank in (0, 1):
        starter = ["-m", "torch.distributed.run", "--nnodes=2", "--nproc-per-node=1", f"--node-rank={rank}"]
        meeting = ["--master-addr=127.0.0.1", f"--master-port={port}", f"--local-addr=127.0.0.{rank + 1}"]
        line = [*command(*starter, *meeting, "-m", "fastvit"), *options(data, tmp_path / "run", *TWO)]
        processes.append(subprocess.Popen(line, env=environment(), stderr=subprocess.PIPE, text=True))
    for process in processes:
        _, said = process.communicate()
        assert process.returncode == 0, said
    assert_equal(tmp_path / "run", alone)
