"""Write the old files, with the package whose files they are: `python -m tests.compatibility.write OUT EMPTY_DIR`.

The files in this folder must not be written anew: see README.md.
"""

from __future__ import annotations

import contextlib
import gzip
import json
import os
import shutil
import sys
from pathlib import Path

import lightning as L
import numpy as np
import onnx
import torch

import fastvit
from fastvit.export.export import export
from fastvit.export.options import ExportOptions
from fastvit.export.target import TARGETS
from fastvit.model.classifier import FastViT
from fastvit.model.config import FastViTConfig, Stage
from fastvit.model.task_model import TaskModel
from fastvit.model.variants import VARIANTS, Variant
from fastvit.tasks.detection.model import Detector
from fastvit.tasks.detection.options import DetectorConfig
from fastvit.tasks.hand_mesh.hand_file import HandArrays
from fastvit.tasks.hand_mesh.model import HandRegressor, regressor_config
from fastvit.tasks.hand_mesh.options import RegressorConfig
from fastvit.tasks.segmentation.model import Segmenter
from fastvit.tasks.segmentation.options import SegmenterConfig
from fastvit.training.recipe import load_recipe, parse_recipe, recipe_parser
from fastvit.training.train import train
from fastvit.weights.native import save
from tests.compatibility.inputs import CLASSES, EPOCHS, VARIANT, images, outputs, picture, write_photos
from tests.reference import formula

FRONT = [Stage(8, 1, mlp_ratio=1.0)] * 3
CONFIG = FastViTConfig((*FRONT, Stage(16, 1, "attention", 1.0, cpe=7)), num_classes=len(CLASSES), head_dim=8)
DETAILS = {"classes": CLASSES, "preprocessing": fastvit.Preprocessing((64, 64), crop_pct=1.0)}
KEPT = ("recipe.yaml", "environment.json", "metrics.csv", "split.csv", "best.safetensors", "last.ckpt")


def few_bits(values: np.ndarray) -> torch.Tensor:
    """Values with five significant bits, so that files are compressed well."""
    mantissa, exponent = np.frexp(values)
    return torch.from_numpy(np.ldexp(np.round(mantissa * 32) / 32, exponent))


def filled(model: TaskModel) -> TaskModel:
    """With parameters and norm statistics from the formula; the arrays of a hand model stay."""
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if name.startswith("hand.") or not tensor.is_floating_point():
                continue
            scale = 0.1 if "bbox" in name else 1.0
            tensor.copy_(scale * few_bits(formula.tensor(name, tuple(tensor.shape), 0)))
    return model.eval()


def hand(vertices: int = 12) -> HandArrays:
    def numbers(name: str, *shape: int) -> np.ndarray:
        return few_bits(formula.uniform(name, shape, 0)).numpy()

    weights, regressor = numbers("weights", vertices, 16), numbers("regressor", 16, vertices)
    return HandArrays(
        name="made up",
        side="right",
        template=0.1 * numbers("template", vertices, 3),
        shape_directions=0.01 * numbers("shape", vertices, 3, 10),
        pose_directions=0.01 * numbers("pose", vertices, 3, 135),
        joint_regressor=regressor / regressor.sum(1, keepdims=True),
        weights=weights / weights.sum(1, keepdims=True),
        faces=np.arange(3 * 20).reshape(20, 3) % vertices,
        pose_mean=0.3 * numbers("mean", 45),
        pose_components=np.eye(45),
        tips=np.arange(5),
    )


def models() -> dict[str, TaskModel]:
    fit = {**DETAILS, "preprocessing": fastvit.Preprocessing((64, 64), resize="fit")}
    small = DetectorConfig("mask_rcnn", width=8, anchor=8, proposals=60, samples=32, detections=20)
    arrays = hand()
    regressor = HandRegressor(
        CONFIG, options=regressor_config(arrays, RegressorConfig("mlp", 32, "both")), classes=None
    )
    regressor.take_hand(arrays)
    classifier = FastViT(CONFIG, **DETAILS)
    return {
        "classification": filled(classifier),
        "classification-fused": fastvit.fuse(classifier),
        "detection": filled(Detector(CONFIG, options=small, **fit)),
        "segmentation": filled(Segmenter(CONFIG, options=SegmenterConfig("fpn", 8, 8, window=48), **fit)),
        "hand_mesh": filled(regressor),
    }


def packed(path: Path) -> None:
    with gzip.GzipFile(f"{path}.gz", "wb", 9, mtime=0) as file:
        file.write(path.read_bytes())
    path.unlink()


def write_checkpoints(folder: Path) -> dict[str, np.ndarray]:
    expected = {}
    for name, model in models().items():
        path = save(model, folder / f"{name}.safetensors", {"top1": 0.5})
        loaded = fastvit.load(path).double().eval()
        shown = torch.from_numpy(images())
        with torch.no_grad():
            found = outputs(loaded(list(shown) if name == "detection" else shown))
        expected |= {f"{name} {key}".strip(): value for key, value in found.items()}
        packed(path)
    return expected


def without_traces(path: Path) -> None:
    """Take out where in which source file each operator came from: these are paths of one machine."""
    proto = onnx.load(path)
    for node in proto.graph.node:
        node.ClearField("metadata_props")
    onnx.save(proto, path)


def write_artifact(folder: Path) -> dict[str, np.ndarray]:
    path, options = folder / "classification.onnx", ExportOptions(input="pixels", output="probabilities")
    model = filled(FastViT(CONFIG.replace(stages=CONFIG.stages[2:]), **DETAILS))
    export(model, TARGETS["onnx"], path, [picture(i) for i in range(3)], options)
    (answer,) = fastvit.Predictor(path)(picture())
    without_traces(path)
    packed(path)
    by_class = sorted(answer.labels, key=lambda label: label.index)
    return {"artifact": np.array([label.probability for label in by_class])}


class Interrupt(L.Callback):
    """As Ctrl-C does, when the last epoch begins."""

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.current_epoch == EPOCHS - 1:
            raise KeyboardInterrupt


def write_run(folder: Path) -> None:
    """In the current directory, where the recipe's paths are."""
    config = FastViTConfig((Stage(8, 1, mlp_ratio=1.0),))
    VARIANTS[VARIANT] = Variant(VARIANT, config, params=0, params_fused=0, gmacs=0.0)
    write_photos(Path("photos"))
    options = (
        *("--data=photos", "--out=run", f"--model.name={VARIANT}", "--model.size=32", "--val_fraction=0.25"),
        *(f"--epochs={EPOCHS}", "--batch_size=8", "--workers=0", "--device=cpu", "--optim.warmup_epochs=1"),
        *("--augmentation.scale=[1.0,1.0]", "--augmentation.ratio=[1.0,1.0]", "--augmentation.random_erasing=0"),
        *("--channels_last=false", "--accumulate=1"),
    )
    with contextlib.suppress(KeyboardInterrupt):
        train(load_recipe("quickstart", *options), [Interrupt()])
    for name in KEPT:
        (folder / "run").mkdir(exist_ok=True)
        shutil.copy(Path("run", name), folder / "run" / name)
    environment = folder / "run" / "environment.json"
    environment.write_text(json.dumps(json.loads(environment.read_text()) | {"system": "Linux"}, indent=2) + "\n")
    for name in ("best.safetensors", "last.ckpt"):
        packed(folder / "run" / name)
    train(parse_recipe(recipe_parser(), ["--resume=run"]))
    shutil.copy(Path("run", "metrics.csv"), folder / "resumed.csv")


if __name__ == "__main__":
    target = Path(sys.argv[1]).absolute()
    target.mkdir(parents=True)
    arrays = write_checkpoints(target) | write_artifact(target)
    np.savez_compressed(target / "expected.npz", **arrays)
    os.chdir(sys.argv[2])  # where the run is made: its recipe has relative paths
    write_run(target)
