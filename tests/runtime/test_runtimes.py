"""What every runtime in the table must do; a new row inherits all of it."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest

import fastvit
from fastvit.export.target import TARGETS
from fastvit.runtime.artifact import RUNTIMES, Runtime, open_artifact, runtimes_for


@pytest.fixture(params=RUNTIMES)
def runtime(request: pytest.FixtureRequest) -> Runtime:
    return RUNTIMES[request.param]


def test_a_row_says_what_it_is(runtime: Runtime) -> None:
    assert RUNTIMES[runtime.name] is runtime
    assert find_spec(runtime.module), "imported when it is used"
    assert runtime.suffixes
    assert all(runtime in runtimes_for(f"model{suffix}") for suffix in runtime.suffixes)


def test_a_target_writes_what_it_reads(runtime: Runtime) -> None:
    assert any(target.suffix in runtime.suffixes for target in TARGETS.values())


def test_every_target_names_a_runtime_that_reads_it() -> None:
    for target in TARGETS.values():
        if target.runtime:
            assert RUNTIMES[target.runtime] in runtimes_for(f"model{target.suffix}"), target.name


def test_a_runtime_that_is_not_here_says_so_in_a_sentence(runtime: Runtime, tmp_path: Path) -> None:
    reason = runtime.available()
    if reason is None:
        reason = f"{tmp_path / 'model'}{runtime.suffixes[0]} does not exist"
    with pytest.raises(fastvit.UserError) as error:
        open_artifact(tmp_path / f"model{runtime.suffixes[0]}", runtime.name, allow_native_code=True)
    assert str(error.value) == reason
    assert "\n" not in reason


def test_a_file_of_something_else_is_refused_in_a_sentence(runtime: Runtime, tmp_path: Path) -> None:
    if reason := runtime.available():
        pytest.skip(reason)
    for number, suffix in enumerate(runtime.suffixes):
        path = tmp_path / f"model{number}{suffix}"
        path.write_bytes(b"something else")
        with pytest.raises(fastvit.UserError, match=path.name) as error:
            open_artifact(path, runtime.name, allow_native_code=True)
        assert "\n" not in str(error.value)
