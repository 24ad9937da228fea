"""A checkpoint on the CPU: exported when it is first used, found again without torch."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

import fastvit
from fastvit.predict.deployment import _is_intact, cached_path, find_deployment, is_deployed
from tests.helpers import randomize, tiny

HERE = find_deployment("auto", "fp32")


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    model = randomize(tiny(num_classes=3, classes=["cat", "dog", "cow"], preprocessing=fastvit.Preprocessing((48, 48))))
    return fastvit.save(model, tmp_path / "pets.safetensors")


def test_first_use_exports_and_the_next_needs_no_torch(
    checkpoint: Path, photo: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("FASTVIT_CACHE", str(tmp_path / "cache"))
    assert not is_deployed(checkpoint)
    predictor = fastvit.Predictor(checkpoint)
    assert predictor.runtime == HERE.runtime
    assert is_deployed(checkpoint)
    expected = fastvit.Predictor(checkpoint, runtime="torch")(photo)[0].labels
    found = predictor([photo] * 3)[2].labels  # any number of images
    assert [label.name for label in found] == [label.name for label in expected]
    assert [x.probability for x in found] == pytest.approx([x.probability for x in expected], abs=1e-5)

    code = (
        f"import sys, fastvit\np = fastvit.Predictor({str(checkpoint)!r})\n"
        f"print(p({str(photo)!r})[0].labels[0].name, p.runtime, 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=os.environ)
    assert done.stdout.split() == [expected[0].name, HERE.runtime, "False"]

    command = [sys.executable, "-m", "fastvit", "predict", checkpoint, photo, "--out", tmp_path / "a.jsonl"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=os.environ)
    assert f"1 image in {HERE.runtime}, 0 unreadable" in done.stdout


def test_a_new_checkpoint_is_exported_anew(checkpoint: Path) -> None:
    before = cached_path(checkpoint, HERE, "fp32")
    fastvit.save(randomize(fastvit.load(checkpoint), seed=1), checkpoint)
    assert cached_path(checkpoint, HERE, "fp32") != before
    assert before.is_relative_to(Path.home() / ".cache" / "fastvit")


def test_a_model_in_memory_where_a_runtime_is_named(checkpoint: Path) -> None:
    model = fastvit.load(checkpoint)
    assert fastvit.Predictor(model).runtime == "torch"
    predictor = fastvit.Predictor(model, runtime="onnxruntime")
    images = torch.rand(2, 3, 48, 48)
    with torch.inference_mode():
        torch.testing.assert_close(predictor.logits(images), model(images), atol=1e-4, rtol=1e-4)
    assert not (Path.home() / ".cache" / "fastvit").exists()


def test_the_file_of_a_model_in_memory_goes_with_its_predictor(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    predictor = fastvit.Predictor(fastvit.load(checkpoint), runtime="onnxruntime")
    (folder,) = (tmp_path / "temporary").glob("fastvit-*")
    with warnings.catch_warnings(record=True, action="always") as warned:
        del predictor
        gc.collect()
    assert not folder.exists()
    assert [str(warning.message) for warning in warned if warning.category is ResourceWarning] == []


def test_what_cannot_be(checkpoint: Path, tmp_path: Path) -> None:
    for options, message in (
        ({"runtime": "litert"}, "a checkpoint runs in torch, onnxruntime and openvino"),
        ({"precision": "int8"}, "int8 is not available for a checkpoint: export it"),
        ({"runtime": "onnxruntime", "precision": "bf16"}, "does not run in bf16 in this runtime"),
        ({"runtime": "torch", "precision": "bf16"}, "a checkpoint runs in fp32"),
        ({"device": "cuda", "runtime": "openvino"}, "a checkpoint runs in fp32"),
    ):
        with pytest.raises(fastvit.UserError, match=message):
            fastvit.Predictor(checkpoint, **options)
    with pytest.raises(fastvit.UserError, match="there is no file"):
        fastvit.Predictor(tmp_path / "none.safetensors")


def test_a_home_that_cannot_be_written(
    checkpoint: Path, photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Permissions do not stop root; a file in the place of a folder does."""
    (tmp_path / "file").touch()
    monkeypatch.setenv("HOME", str(tmp_path / "file"))
    assert not is_deployed(checkpoint)
    with pytest.warns(UserWarning, match="cannot write the cache .*set FASTVIT_CACHE") as warned:
        predictor = fastvit.Predictor(checkpoint)
    places = [Path(warning.filename) for warning in warned if warning.category is UserWarning]
    assert places == [Path(__file__)], "shown where the Predictor is made"
    assert predictor.runtime == HERE.runtime
    expected = fastvit.Predictor(checkpoint, runtime="torch")(photo)[0].labels
    assert predictor(photo)[0].labels[0].probability == pytest.approx(expected[0].probability, abs=1e-5)


@pytest.mark.slow
def test_the_command_without_a_cache(checkpoint: Path, photo: Path) -> None:
    environment = os.environ | {"FASTVIT_CACHE": f"{photo}/cache"}
    command = [sys.executable, "-m", "fastvit", "predict", checkpoint, photo, "--runtime", HERE.runtime]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    assert f"fastvit: warning: cannot write the cache {photo}/cache (Not a directory)" in done.stderr
    assert fastvit.Predictor(checkpoint, runtime="torch")(photo)[0].labels[0].name in done.stdout


def test_no_folder_that_can_be_written(checkpoint: Path, photo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FASTVIT_CACHE", f"{photo}/cache")
    monkeypatch.setattr(tempfile, "tempdir", f"{photo}/temporary")
    with pytest.warns(UserWarning, match="set FASTVIT_CACHE") as warned:
        predictor = fastvit.Predictor(checkpoint)
    first, second = (str(warning.message) for warning in warned)
    assert first.startswith("cannot write the cache")
    assert "it runs in PyTorch, which is slower: set FASTVIT_CACHE" in second
    assert predictor.runtime == "torch"
    assert len(predictor(photo)[0].labels) == 3
    with (
        pytest.warns(UserWarning, match="cannot write the cache"),
        pytest.raises(fastvit.UserError, match="to a temporary folder: .*set FASTVIT_CACHE"),
    ):
        fastvit.Predictor(checkpoint, runtime=HERE.runtime)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def blank(path: Path) -> None:
    """As a disk does that lost a block."""
    path.write_bytes(bytes(512) + path.read_bytes()[512:])


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(blank, id="blank"),
        pytest.param(cut, id="cut", marks=pytest.mark.slow),
        pytest.param(Path.unlink, id="missing", marks=pytest.mark.slow),
    ],
)
def test_a_damaged_entry_is_made_anew(checkpoint: Path, photo: Path, damage: Callable[[Path], None]) -> None:
    """OpenVINO reads weights of the right size without an error, whatever they are."""
    expected = fastvit.Predictor(checkpoint)(photo)
    path = cached_path(checkpoint, HERE, "fp32")
    entry, weights = path.parent, path.with_suffix(".bin") if HERE.name == "openvino" else path
    names = {file.name for file in entry.iterdir()}
    damage(weights)
    assert fastvit.Predictor(checkpoint)(photo) == expected
    assert {file.name for file in entry.iterdir()} == names
    left = {path.name for path in entry.parent.iterdir()} - {f".{entry.name}.lock"}
    assert left == {entry.name}, "nothing is left over"


def test_a_half_written_entry_is_made_anew(checkpoint: Path, photo: Path) -> None:
    path = cached_path(checkpoint, HERE, "fp32")
    path.parent.mkdir(parents=True)
    path.touch()
    assert fastvit.Predictor(checkpoint)(photo)
    assert path.stat().st_size > 0


@pytest.mark.parametrize("digests", ["3", "null", "[" * 100_000], ids=["number", "null", "deep"])
def test_digests_that_are_not_an_object_are_damage(checkpoint: Path, digests: str) -> None:
    path = cached_path(checkpoint, HERE, "fp32")
    path.parent.mkdir(parents=True)
    path.touch()
    (path.parent / "digests.json").write_text(digests)
    assert not _is_intact(path)


def test_threads_make_an_entry_once(checkpoint: Path, photo: Path) -> None:
    """Also in the place of a file that is not an entry."""
    entry = cached_path(checkpoint, HERE, "fp32").parent
    entry.parent.mkdir(parents=True)
    entry.write_text("not a folder")
    with ThreadPoolExecutor(3) as pool, warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        predictors = list(pool.map(fastvit.Predictor, [checkpoint] * 3))
    assert len({str(predictor(photo)) for predictor in predictors}) == 1
    assert {predictor.runtime for predictor in predictors} == {HERE.runtime}
    assert entry.is_dir()


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can be another user")
def test_a_user_without_a_home() -> None:
    code = "import os\nfrom fastvit.files import cache_folder\nos.setuid(54321)\nprint(cache_folder())"
    environment = {name: value for name, value in os.environ.items() if name != "HOME"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert done.stdout == "/.cache/fastvit\n"
