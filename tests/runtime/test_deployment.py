"""A checkpoint on the CPU: exported when it is first used, found again without torch."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import fastvit
from fastvit.runtime.deployment import cached_path, find_deployment, is_deployed
from tests.helpers import randomise, tiny

HERE = find_deployment("auto", "fp32")


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    model = randomise(tiny(num_classes=3, classes=["cat", "dog", "cow"], preprocessing=fastvit.Preprocessing((48, 48))))
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
    assert f"1 images in {HERE.runtime}, 0 could not be read" in done.stdout


def test_a_new_checkpoint_is_exported_anew(checkpoint: Path) -> None:
    before = cached_path(checkpoint, HERE, "fp32")
    fastvit.save(randomise(fastvit.load(checkpoint), seed=1), checkpoint)
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


def test_what_cannot_be(checkpoint: Path, tmp_path: Path) -> None:
    for options, message in (
        ({"runtime": "litert"}, "a checkpoint runs in torch, onnxruntime and openvino"),
        ({"precision": "int8"}, "does not run in int8 so: make an artifact"),
        ({"runtime": "onnxruntime", "precision": "bf16"}, "does not run in bf16 so"),
        ({"runtime": "torch", "precision": "bf16"}, "a checkpoint runs in fp32"),
        ({"device": "cuda", "runtime": "openvino"}, "a checkpoint runs in fp32"),
    ):
        with pytest.raises(fastvit.UserError, match=message):
            fastvit.Predictor(checkpoint, **options)
    with pytest.raises(fastvit.UserError, match="there is no file"):
        fastvit.Predictor(tmp_path / "none.safetensors")
