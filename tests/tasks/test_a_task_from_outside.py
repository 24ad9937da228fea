"""A task that a plugin adds: trained, evaluated, used, compared, timed and exported, with no word of it in the package.

Everything runs in one fresh process, which finds the task as it finds that of any installed package.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import fastvit

RUN = """
import sys
from fastvit.cli.main import main

for line in open(sys.argv[1]):
    arguments = line.split()
    print("+", *arguments, flush=True)
    code = main(arguments)
    if code:
        sys.exit(f"{arguments[0]} ended with {code}")
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the task as an installed package."""
    folder = tmp_path_factory.mktemp("site")
    shutil.copy(Path(__file__).with_name("brightness.py"), folder / "brightness.py")
    info = folder / "brightness-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: brightness\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[fastvit.plugins]\nbrightness = brightness\n")
    return folder


def python(site: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    paths = os.pathsep.join([str(site), str(Path(fastvit.__file__).parent.parent)])
    environment = {**os.environ, "PYTHONPATH": paths, "FASTVIT_CACHE": str(site / "cache")}
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, env=environment, check=False)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    for part, count in (("train", 16), ("val", 6)):
        (folder / part).mkdir()
        for index in range(count):
            value = np.uint8(255 * index / (count - 1))
            Image.fromarray(np.full((40, 40, 3), value)).save(folder / part / f"{index}.png")
    return folder


def test_it_does_all_that_a_task_of_the_package_does(site: Path, photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    commands = [
        f"train --task brightness --data {photos} --out {out} --model.name t8 --model.size 32 --epochs 2"
        " --num-workers 0 --batch_size 8 --optim.warmup_epochs 0 --brightness.hflip 0.25 --device cpu --ema.decay 0",
        f"train --resume {out} --epochs 3",
        f"eval {out} --num-workers 0 --device cpu --out {tmp_path / 'evaluation'} --per-class",
        f"predict {out} {photos / 'val'} --out {tmp_path / 'predictions.jsonl'} --draw {tmp_path / 'drawn'}",
        f"fuse {out} --out {tmp_path / 'fused.safetensors'}",
        f"export {out} --to onnx --out {tmp_path / 'export'} --images 4",
        f"predict {tmp_path / 'export' / 'fastvit_t8-fp32.onnx'} {photos / 'val'} --out {tmp_path / 'onnx.jsonl'}",
        f"eval {tmp_path / 'export' / 'fastvit_t8-fp32.onnx'} --data {photos} --num-workers 0 --json",
        f"info {out}",
        f"compare {out} --no-latency --out {tmp_path / 'report.html'}",
        f"bench dimmer-t8 --size 32 --backends fused --rounds 2 --out {tmp_path / 'bench'}",
    ]
    (tmp_path / "commands").write_text("\n".join(commands))
    done = python(site, "-c", RUN, str(tmp_path / "commands"))
    assert done.returncode == 0, done.stdout + done.stderr
    recipe = (out / "recipe.yaml").read_text()
    assert "brightness:\n  hflip: 0.25" in recipe
    assert not any(f"\n{name}:" in recipe for name in ("mixup", "detection", "augmentation"))
    evaluation = json.loads((tmp_path / "evaluation" / "evaluation.json").read_text())
    assert (evaluation["task"], evaluation["images"], len(evaluation["per_image"])) == ("brightness", 6, 6)
    assert "<h2>Examples</h2>" in (tmp_path / "evaluation" / "evaluation.html").read_text()
    torch, onnx = (
        [json.loads(line)["predictions"][0]["brightness"] for line in (tmp_path / name).read_text().splitlines()]
        for name in ("predictions.jsonl", "onnx.jsonl")
    )
    np.testing.assert_allclose(onnx, torch, rtol=0, atol=1e-5)
    assert len(list((tmp_path / "drawn").iterdir())) == 6
    assert "brightness error" in (tmp_path / "report.html").read_text()
    (artifact,) = json.loads((tmp_path / "export" / "report.json").read_text())["artifacts"]
    assert artifact["proof"]["images"] == 4


def test_without_the_plugin_the_name_is_unknown(site: Path, photos: Path, tmp_path: Path) -> None:
    done = python(tmp_path, "-m", "fastvit", "train", "--task", "brightness", "--data", str(photos))
    assert done.returncode == 2
    assert "unknown task 'brightness'; choose from classification, detection, segmentation, hand_mesh" in done.stderr
    assert done.stderr.count("\n") == 1
