"""Options of commands that some tasks have: for the models of other tasks each is an error that names it."""

from __future__ import annotations

import inspect
from pathlib import Path

import pytest

import fastvit
from fastvit.cli.commands import COMMANDS
from fastvit.tasks.table import TASKS, all_tasks, find_task
from tests.tasks.small_models import small_model
from tests.test_cli import complaint, inside

VALUES = {"k": 2, "batch_size": 2, "score": 0.5, "mesh": "meshes", "crop_pct": 0.9, "real_labels": None}
PARAMETERS = {command: inspect.signature(COMMANDS[command]).parameters for command in ("predict", "eval")}
OWN = sorted({name for spec in all_tasks() for name in spec.own_options})


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("models")
    return {task: fastvit.save(small_model(task), folder / f"{task}.safetensors") for task in TASKS}


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize(
    ("command", "name"), [(command, name) for command, known in PARAMETERS.items() for name in OWN if name in known]
)
def test_an_option_of_other_tasks_is_an_error(
    models: dict[str, Path],
    photo: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    task: str,
    command: str,
    name: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    option = f"--{name.replace('_', '-')}"
    value = [] if VALUES[name] is None else [VALUES[name]]
    rest = [photo, "--runtime", "torch", "--device", "cpu"] if command == "predict" else ["--data", tmp_path / "none"]
    if name in find_task(task).own_options:
        done = inside(command, models[task], *rest, option, *value)
        assert f"{option} is for" not in done.stderr
    else:
        line = complaint(command, models[task], *rest, option, *value, run=inside)
        assert f"{option} is for " in line
        assert f"this model is for {task}: leave it out" in line


def test_every_own_option_is_one_of_a_command() -> None:
    for name in OWN:
        assert any(name in known for known in PARAMETERS.values()), name
        assert all(known[name].default in (None, False) for known in PARAMETERS.values() if name in known), name
