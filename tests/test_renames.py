"""Names of before version 0.2: in files they load, on the command line they are errors that name the new ones."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from fastvit.cli.commands import COMMANDS
from fastvit.cli.main import main
from fastvit.cli.parser import command_parser
from fastvit.errors import UserError
from fastvit.model.preprocessing import Preprocessing
from fastvit.renames import COMMANDS as OLD_COMMANDS
from fastvit.renames import FIELDS, OPTIONS, RESIZES, VALUES
from fastvit.runs.settings import flatten, read_settings
from fastvit.tasks.table import TASKS, all_tasks, find_task
from fastvit.training.fields import Field, recipe_fields
from fastvit.training.options import Recipe
from fastvit.training.recipe import dump_recipe, load_recipe, parse_recipe, recipe_names
from fastvit.weights.description import Description
from tests.helpers import nested, tiny
from tests.tasks.contracts import make_detector, make_segmenter

# A run that the version before wrote; its recipe has the fields of all tasks.
OLD_RUN = Path(__file__).parent / "compatibility" / "files" / "run" / "recipe.yaml"
KNOWN: dict[str, dict[str, Field]] = {
    task: {field.name: field for field in recipe_fields(Recipe(task=task))} for task in TASKS
}
TASK_OF = {new: next(task for task in TASKS if new in KNOWN[task]) for new in FIELDS.values()}


def kinds_of(name: str) -> list[Any]:
    """The types of a field, without the None of one that may be off."""
    kind = KNOWN[TASK_OF[name]][name].kind
    return [each for each in get_args(kind) if each is not type(None)] or [kind]


def old_values(old: str) -> st.SearchStrategy[Any]:
    """Values of a field that are valid, as files of the time have them."""
    kinds = kinds_of(FIELDS[old])
    if old in VALUES:
        return st.sampled_from([*VALUES[old], *(kind for kind in kinds if kind not in VALUES[old].values())])
    strategies = {bool: st.booleans(), int: st.integers(1, 31).map(lambda n: 32 * n), float: st.floats(0.01, 0.99)}
    if len(kinds) == 2:
        return st.tuples(*map(strategies.get, kinds)).map(sorted)
    return strategies[kinds[0]]


def another_value(old: str) -> Any:
    """A value that is not the default of the field, as a file of the time has it."""
    if old in VALUES:
        return list(VALUES[old])[-1]
    kinds, default = kinds_of(FIELDS[old]), DEFAULTS[TASK_OF[FIELDS[old]]][FIELDS[old]]
    return [0.25, 1.75] if len(kinds) == 2 else {bool: not default, int: 64, float: 0.25}[kinds[0]]


def new_value(old: str, value: Any) -> Any:
    """What a value of an old field is now."""
    return VALUES[old].get(value, value) if old in VALUES else value


def write(path: Path, fields: Mapping[str, Any]) -> str:
    """A recipe file with fields by their dotted names, in sections."""
    path.write_text(yaml.safe_dump(nested(fields)))
    return str(path)


def values_of(recipe: Recipe) -> dict[str, Any]:
    """The values of its fields by their dotted names, lists as files have them."""
    values = {field.name: field.value for field in recipe_fields(recipe)}
    return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}


DEFAULTS = {task: values_of(Recipe(task=task)) for task in TASKS}


def test_no_old_name_is_a_field() -> None:
    names = {name for known in KNOWN.values() for name in known}
    assert not names & FIELDS.keys()
    assert names >= set(FIELDS.values())
    assert len(set(FIELDS.values())) == len(FIELDS)
    assert "mixing" not in {section for spec in all_tasks() for section in spec.sections}


def test_every_old_name_was_a_field() -> None:
    """Of the run that the version before wrote, but for those that its dump left out as None."""
    written = flatten(yaml.safe_load(OLD_RUN.read_text()))
    assert FIELDS.keys() - written.keys() == {"optim.clip", "segmentation.network.window"}


@pytest.mark.parametrize("old", FIELDS)
def test_an_old_field_is_the_new_one(tmp_path: Path, old: str) -> None:
    value, new = another_value(old), FIELDS[old]
    path = write(tmp_path / "old.yaml", {"task": TASK_OF[new], old: value})
    with pytest.warns(UserWarning, match=f"old.yaml uses old field names: {old} is now called {new}$") as told:
        found = values_of(load_recipe(path))
    assert len(told) == 1
    assert found == DEFAULTS[TASK_OF[new]] | {new: new_value(old, value)}, "nothing else changes"
    assert found != DEFAULTS[TASK_OF[new]]


@pytest.mark.parametrize("task", TASKS)
@given(data=st.data())
@settings(max_examples=5, deadline=None)
def test_a_recipe_with_old_names_is_the_one_with_new_names(
    tmp_path_factory: pytest.TempPathFactory, task: str, data: st.DataObject
) -> None:
    names = data.draw(st.sets(st.sampled_from([old for old in FIELDS if FIELDS[old] in KNOWN[task]]), min_size=1))
    old = {name: data.draw(old_values(name), name) for name in sorted(names)}
    new = {FIELDS[name]: new_value(name, value) for name, value in old.items()}
    folder = tmp_path_factory.mktemp("recipes")
    with pytest.warns(UserWarning, match="uses old field names") as told:
        found = load_recipe(write(folder / "old.yaml", {"task": task, **old}))
    (message,) = [str(each.message) for each in told]
    assert all(f"{name} is now called {FIELDS[name]}" in message for name in old)
    assert found == load_recipe(write(folder / "new.yaml", {"task": task, **new}))


@pytest.mark.parametrize("old", VALUES)
def test_every_old_value_has_a_new_one(old: str) -> None:
    new = VALUES[old]
    assert set(new.values()) <= set(kinds_of(FIELDS[old]))
    assert not set(new) & set(kinds_of(FIELDS[old]))
    with pytest.raises(UserError, match=FIELDS[old].replace("_", "-")):
        parse_recipe([f"--{FIELDS[old]}={next(iter(new))}"])


@pytest.mark.parametrize("task", TASKS)
def test_a_resolved_recipe_of_before_has_the_same_values(task: str, tmp_path: Path) -> None:
    content = yaml.safe_load(OLD_RUN.read_text()) | {"task": task}
    unused = find_task(task).unused_fields
    fields = {name: value for name, value in flatten(content).items() if name not in unused}
    path = write(tmp_path / "recipe.yaml", fields)
    with pytest.warns(UserWarning, match="uses old field names") as given_warnings:
        recipe = load_recipe(path)
    found = values_of(recipe)
    old = [str(each.message) for each in given_warnings if "is now called" in str(each.message)]
    assert len(old) == 1
    checked = set()
    for name, value in fields.items():
        new = FIELDS.get(name, name)
        if new not in KNOWN[task]:
            assert f"{name} is now called" not in old[0], "it is of another task"
            continue
        assert (f"{name} is now called {new}" in old[0]) == (name in FIELDS)
        assert found[new] == new_value(name, value)
        checked.add(new)
    others = KNOWN[task].keys() - checked - unused.keys() - {"out", "overwrite"}
    assert {name: found[name] for name in others} == dict.fromkeys(others), "a file leaves out what was None"
    # Written down again, it has the new names alone.
    (tmp_path / "again.yaml").write_text(dump_recipe(recipe))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert values_of(load_recipe(str(tmp_path / "again.yaml"))) == found


def test_the_settings_of_an_old_run_have_the_new_names() -> None:
    """As the comparison of runs reads them."""
    found = read_settings(OLD_RUN)
    assert not found.keys() & FIELDS.keys()
    assert (found["batchnorm"], found["model.collapse_branches"], found["mixup.label_smoothing"]) == (
        "train",
        "auto",
        0.1,
    )


def test_the_new_name_wins(tmp_path: Path) -> None:
    path = write(tmp_path / "both.yaml", {"num_workers": 2, "workers": 1, "optim": {"clip": 1.0, "clip_grad": 2.0}})
    with pytest.warns(UserWarning, match="workers is now called num_workers"):
        recipe = load_recipe(path)
    assert (recipe.num_workers, recipe.optim.clip_grad) == (2, 2.0)


def test_a_base_with_old_names_is_changed_by_new_ones(tmp_path: Path) -> None:
    base = write(tmp_path / "base.yaml", {"workers": 1, "mixing.prob": 0.25})
    path = write(tmp_path / "mine.yaml", {"base": base, "num_workers": 2})
    with pytest.warns(UserWarning, match=r"base.yaml uses old field names: .*mixing\.prob is now called"):
        recipe = load_recipe(path)
    assert (recipe.num_workers, recipe.mixup.mixup_prob) == (2, 0.25)


@pytest.mark.parametrize("name", recipe_names())
def test_shipped_recipes_have_the_new_names(name: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_recipe(name)


def hyphened(name: str) -> str:
    return name.replace("_", "-")


@pytest.mark.parametrize("old", FIELDS)
def test_an_old_option_of_training_is_told_its_new_name(old: str, capsys: pytest.CaptureFixture[str]) -> None:
    new = FIELDS[old]
    spellings = {f"--{old}=1", f"--{hyphened(old)}=1"}
    if kinds_of(new) == [bool]:
        spellings |= {f"--{hyphened(old)}"}
    for spelling in spellings:
        assert main(["train", "--task", TASK_OF[new], spelling]) == 2
        assert f"--{hyphened(old)} is now called --{hyphened(new)} (see" in capsys.readouterr().err
    assert main(["train", "--task", TASK_OF[new], f"--no-{hyphened(old)}"]) == 2
    assert f"--no-{hyphened(old)} is now called --no-{hyphened(new)}" in capsys.readouterr().err


OTHERS = {
    command: command_parser(command, function).option_names
    for command, function in COMMANDS.items()
    if command != "train"
}
OLD_OPTIONS = [
    (command, hyphened(old), hyphened(new))
    for command, options in OTHERS.items()
    for old, new in {**FIELDS, **OPTIONS.get(command, {})}.items()
    if f"--{hyphened(new)}" in options
]


def test_which_commands_have_renamed_options() -> None:
    assert {(command, old) for command, old, _ in OLD_OPTIONS} == {
        *(("eval", "workers"), ("eval", "allow-damaged")),
        *(("synth hands", "workers"), ("robustness", "workers")),
        *(("bench models", "runtime"), ("bench train", "runtime")),
    }


@pytest.mark.parametrize(("command", "old", "new"), OLD_OPTIONS)
def test_an_old_option_of_a_command_is_told_its_new_name(
    command: str, old: str, new: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*command.split(), "somewhere", f"--{old}", "1"]) == 2
    assert f"fastvit: error: --{old} is now called --{new} (see fastvit {command} --help)" in capsys.readouterr().err
    assert main(["models", f"--{old}"]) == 2
    assert f"fastvit models has no option --{old}" in capsys.readouterr().err, "it never had one"


@pytest.mark.parametrize(
    "model",
    [
        make_detector("retinanet", score_thresh=0.25, nms_thresh=0.75),
        make_detector("mask_rcnn", roi_batch_size=16, max_detections=7),
        make_segmenter("fpn", slide_window=96),
        tiny(),
    ],
    ids=lambda model: model.task,
)
def test_an_old_description_loads(model: Any) -> None:
    described = Description.of(model)
    content = described.to_dict()
    old = copy.deepcopy(content)
    prefix = f"{model.task}.network."
    names = {
        new.removeprefix(prefix): name.removeprefix(prefix) for name, new in FIELDS.items() if name.startswith(prefix)
    }
    if content["options"] is not None:
        old["options"] = {names.get(name, name): value for name, value in content["options"].items()}
        assert old["options"].keys() != content["options"].keys()
    assert Description.from_dict(old, "old") == Description.from_dict(content, "new") == described


@pytest.mark.parametrize(("old", "new"), OLD_COMMANDS.items())
def test_an_old_command_is_told_its_new_name(old: str, new: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert new in COMMANDS
    assert main([old, "somewhere"]) == 2
    assert capsys.readouterr().err == f"fastvit: error: fastvit {old} is now called fastvit {new}\n"


@pytest.mark.parametrize(("old", "new"), RESIZES.items())
def test_an_old_way_to_resize_loads(old: str, new: Any) -> None:
    expected = Preprocessing((64, 96), resize=new)
    assert Preprocessing.from_dict({**expected.to_dict(), "resize": old}) == expected
