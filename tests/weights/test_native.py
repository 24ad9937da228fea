"""Our files: what they carry, and what becomes of damaged ones."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

import fastvit
from tests.helpers import tiny


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    model = tiny(
        num_classes=2,
        variant="mine",
        classes=["cat", "dog"],
        preprocessing=fastvit.Preprocessing((48, 64), (0.1, 0.2, 0.3), (0.4, 0.5, 0.6), 0.8, "bilinear"),
    )
    return fastvit.save(model, tmp_path / "model.safetensors", {"top1": 0.5})


def test_a_file_says_what_it_is(checkpoint: Path) -> None:
    with safe_open(checkpoint, "pt") as file:
        info = json.loads(file.metadata()["fastvit"])
    assert (info["task"], info["variant"], info["form"], info["format_version"]) == (
        "classification",
        "mine",
        "train",
        1,
    )
    assert info["metrics"] == {"top1": 0.5}
    model = fastvit.load(checkpoint)
    assert (model.variant, model.classes, model.preprocessing.size) == ("mine", ("cat", "dog"), (48, 64))
    assert model.preprocessing == fastvit.Preprocessing((48, 64), (0.1, 0.2, 0.3), (0.4, 0.5, 0.6), 0.8, "bilinear")
    assert not model.training
    assert not any(p.is_meta for p in (*model.parameters(), *model.buffers()))


def test_directory_with_one_file(checkpoint: Path) -> None:
    assert fastvit.load(checkpoint.parent).variant == "mine"
    checkpoint.rename(checkpoint.with_name("other.safetensors"))
    assert fastvit.load(checkpoint.parent).variant == "mine"
    (checkpoint.parent / "second.safetensors").touch()
    with pytest.raises(fastvit.UserError, match=r"2 weights files \(other.safetensors, second.safetensors\)"):
        fastvit.load(checkpoint.parent)


def test_classes_and_preprocessing_come_along_with_weights(checkpoint: Path) -> None:
    model = tiny(num_classes=2)
    fastvit.load_weights(model, checkpoint)
    assert (model.classes, model.preprocessing.crop_pct) == (("cat", "dog"), 0.8)


@pytest.mark.parametrize("keep", [0, 7, 100, 0.5, 0.999])
def test_truncated_files(checkpoint: Path, keep: float) -> None:
    content = checkpoint.read_bytes()
    checkpoint.write_bytes(content[: int(keep * len(content)) if isinstance(keep, float) else keep])
    with pytest.raises(fastvit.UserError, match=r"model.safetensors is corrupt or incomplete"):
        fastvit.load(checkpoint)


@pytest.mark.parametrize("keep", [0, 7, 0.5, 0.999])
def test_truncated_pickles(tmp_path: Path, keep: float) -> None:
    path = tmp_path / "model.pth.tar"
    torch.save({"state_dict": tiny().state_dict()}, path)
    content = path.read_bytes()
    path.write_bytes(content[: int(keep * len(content)) if isinstance(keep, float) else keep])
    with pytest.raises(fastvit.UserError, match=r"model.pth.tar is corrupt"):
        fastvit.load_weights(tiny(), path)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_with_code_is_refused_and_not_run(tmp_path: Path, zipped: bool) -> None:
    witness = tmp_path / "ran"

    class Hostile:
        def __reduce__(self):
            return Path.touch, (witness,)

    path = tmp_path / "model.pth"
    if zipped:
        torch.save({"state_dict": tiny().state_dict(), "extra": Hostile()}, path)
    else:
        path.write_bytes(pickle.dumps({"state_dict": Hostile()}))
    with pytest.raises(fastvit.UserError, match=r"would run code|is corrupt"):
        fastvit.load(path)
    assert not witness.exists()
    pickle.loads(pickle.dumps(Hostile()))
    assert witness.exists(), "the file would have run code in an ordinary reader"


def test_timm_training_checkpoint_with_arguments(tmp_path: Path) -> None:
    import argparse

    raw, averaged, target = tiny(), tiny(), tiny()
    content = {
        "state_dict": raw.state_dict(),
        "state_dict_ema": averaged.state_dict(),
        "args": argparse.Namespace(lr=1),
    }
    torch.save(content, tmp_path / "last.pth.tar")
    fastvit.load_weights(target, tmp_path / "last.pth.tar")
    assert torch.equal(target.head.weight, averaged.head.weight), "the moving average comes first, as in timm"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format_version": 99}, "format version 99.*pip install -U fastvit"),
        ({"config": {"stages": [], "color": 1}}, "configuration does not fit.*color"),
        ({"config": None}, "configuration does not fit"),
        ({"classes": ["cat"]}, "1 class names for 2 classes"),
        ({"preprocessing": {"sizes": 1}}, "preprocessing description does not fit.*sizes"),
        ({"variant": ...}, "lacks variant"),
    ],
)
def test_description_of_another_version(checkpoint: Path, change: dict, message: str) -> None:
    with safe_open(checkpoint, "pt") as file:
        info = json.loads(file.metadata()["fastvit"])
    info = {k: v for k, v in (info | change).items() if v is not ...}
    save_file(fastvit.load(checkpoint).state_dict(), checkpoint, {"fastvit": json.dumps(info)})
    with pytest.raises(fastvit.UserError, match=message):
        fastvit.load(checkpoint)


def test_a_description_that_is_no_object(checkpoint: Path) -> None:
    save_file(fastvit.load(checkpoint).state_dict(), checkpoint, {"fastvit": "[1]"})
    for read in (fastvit.load, lambda path: fastvit.load_weights(tiny(num_classes=2), path)):
        with pytest.raises(fastvit.UserError, match="not a JSON object"):
            read(checkpoint)


def test_a_loaded_model_is_its_own() -> None:
    state = fastvit.create_model("t8", num_classes=3).state_dict()
    model = fastvit.load(state)
    with torch.no_grad():
        model.head.weight.zero_()
    assert state["head.weight"].abs().sum() > 0


def test_wrong_names(tmp_path: Path) -> None:
    with pytest.raises(fastvit.UserError, match="there is no file"):
        fastvit.load(tmp_path / "none.safetensors")
    (tmp_path / "notes.txt").touch()
    with pytest.raises(fastvit.UserError, match="is not a Hugging Face Hub id"):
        fastvit.load("a/b--c")
    with pytest.raises(fastvit.UserError, match="is not a weights file"):
        fastvit.load(tmp_path / "notes.txt")
    for name, message in (
        ("photo.JPG", "is an image"),
        ("model.onnx", "is not a weights file .*; use exported models with fastvit predict"),
        ("empty", "does not contain weights"),
    ):
        (tmp_path / name).mkdir() if name == "empty" else (tmp_path / name).touch()
        with pytest.raises(fastvit.UserError, match=f"{name} {message}"):
            fastvit.load(tmp_path / name)
    with pytest.raises(fastvit.UserError, match=r"model\.pth: give a file name that ends in \.safetensors"):
        fastvit.save(tiny(), tmp_path / "model.pth")


def test_a_failed_write_keeps_the_previous_file(checkpoint: Path) -> None:
    before = checkpoint.read_bytes()
    unsaveable = tiny()
    unsaveable.register_buffer("quantized", torch.quantize_per_tensor(torch.zeros(2), 0.1, 0, torch.qint8))
    with pytest.raises(Exception, match="qint8"):
        fastvit.save(unsaveable, checkpoint)
    assert checkpoint.read_bytes() == before
    assert [p.name for p in checkpoint.parent.iterdir()] == [checkpoint.name]


def test_a_full_disk_keeps_the_previous_file(checkpoint: Path) -> None:
    """RLIMIT_FSIZE makes writing fail part-way, as a full disk does, in a process of its own."""
    import subprocess
    import sys

    before = checkpoint.read_bytes()
    program = (
        "import resource, signal, sys, fastvit\n"
        "model = fastvit.load(sys.argv[1])\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))\n"
        "try:\n    fastvit.save(model, sys.argv[1])\n"
        "except fastvit.UserError as error:\n    print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", program, str(checkpoint)], capture_output=True, text=True, check=True)
    assert f"cannot write {checkpoint}" in done.stdout
    assert checkpoint.read_bytes() == before
    assert [p.name for p in checkpoint.parent.iterdir()] == [checkpoint.name]
