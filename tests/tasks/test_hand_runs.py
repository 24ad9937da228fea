"""Hand mesh regression as a person does it: from synthetic images to a trained, proved and exported network."""

from __future__ import annotations

import csv
import json
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import fastvit
from fastvit.evaluation.examples import examples
from fastvit.runs.files import STATE
from fastvit.tasks.hand_mesh.camera import project
from fastvit.tasks.hand_mesh.freihand import open_freihand
from fastvit.tasks.hand_mesh.metrics import aligned
from fastvit.tasks.hand_mesh.skeleton import JOINTS, ROOT
from fastvit.tasks.hand_mesh.synthetic_folder import write_hands
from fastvit.training.checkpoint import Terminated
from fastvit.training.recipe import parse_recipe
from fastvit.training.train import train
from tests.test_cli import complaint, inside, succeeded
from tests.training.runs import SignalAt

SIDE = 64
SHARED = (
    *("--task=hand_mesh", "--device=cpu", "--epochs=2", "--batch_size=2", "--num-workers=0", "--optim.warmup_epochs=0"),
    *("--optim.lr=1e-3", "--checkpoint_every=2", f"--hand_mesh.size={SIDE}", "--hand_mesh.network.head_channels=32"),
    *("--hand_mesh.network.sides=both", "--hand_mesh.hflip=0.5"),
)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six pictures to train on and one to validate on."""
    folder = tmp_path_factory.mktemp("hands") / "hands"
    text = succeeded("synth", "hands", folder, "--images", 6, "--size", SIDE, "--num-workers", 0, run=inside)
    assert "6 training and 1 evaluation images, 64x64 px" in text
    return folder


@pytest.fixture(scope="module")
def trained(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two epochs of three steps each."""
    out = tmp_path_factory.mktemp("runs") / "hands"
    text = succeeded("train", f"--data={data}", f"--out={out}", *SHARED, run=inside)
    assert f"{out}/best.safetensors: PA-MPJPE " in text
    assert " mm on the validation images" in text
    return out


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "metrics.csv").open(newline="") as file:
        return [{k: v for k, v in row.items() if k != "train/images_per_second"} for row in csv.DictReader(file)]


def test_a_run_leaves_what_is_promised(trained: Path) -> None:
    made = {path.name for path in trained.iterdir()}
    assert {"best.safetensors", "last.safetensors", "recipe.yaml", "metrics.csv", "report.html", STATE} <= made
    model = fastvit.load(trained)
    assert (model.task, fastvit.form(model), model.classes, model.preprocessing.size) == (
        "hand_mesh",
        "train",
        ("hand",),
        (SIDE, SIDE),
    )
    logged = [float(row["val/pa_mpjpe"]) for row in rows(trained) if row["val/pa_mpjpe"]]
    assert len(logged) == 2
    text = succeeded("info", trained, run=inside)
    for part in ("hand_mesh", f"pa_mpjpe {min(logged):.4f}", "sides both", "name procedural", "vertices 1102"):
        assert part in text, part
    page = (trained / "report.html").read_text()
    assert "Examples" in page
    assert f"PA-MPJPE {min(logged):.2f} mm on the validation images" in page


def test_the_best_weights_are_those_of_the_least_error(trained: Path) -> None:
    logged = [float(row["val/pa_mpjpe"]) for row in rows(trained) if row["val/pa_mpjpe"]]
    best, last = (fastvit.load(trained / f"{name}.safetensors").state_dict() for name in ("best", "last"))
    same = all(torch.equal(best[name], last[name]) for name in best)
    assert same == (logged[1] < logged[0])


def test_evaluation_is_that_of_the_run(trained: Path, data: Path, tmp_path: Path) -> None:
    best = min(float(row["val/pa_mpjpe"]) for row in rows(trained) if row["val/pa_mpjpe"])
    options = ("--data", data, "--num-workers", 0, "--device", "cpu", "--json")
    plain = json.loads(succeeded("eval", trained, *options[2:], "--form", "train", run=inside))  # of the run's own data
    assert (plain["images"], plain["task"], plain["size"]) == (1, "hand_mesh", [SIDE, SIDE])
    assert plain["pa_mpjpe"] == pytest.approx(best, abs=1e-3)
    fused = json.loads(succeeded("eval", trained, *options, "--out", tmp_path, run=inside))
    assert fused["form"] == "fused"
    assert fused["pa_mpjpe"] == pytest.approx(best, abs=1e-2)
    written = json.loads((tmp_path / "evaluation.json").read_text())
    assert set(written["per_joint"]) == set(JOINTS)
    assert 0 <= written["f5"] <= written["f15"] <= 1
    page = (tmp_path / "evaluation.html").read_text()
    for title in ("Examples", "Joint accuracy (PCK)", "Results per joint"):
        assert f"<h2>{title}</h2>" in page
    table = succeeded("eval", trained, *options[:-1], "--per_class", run=inside)
    assert "wrist" in table
    assert "mm" in table

    # What FreiHAND's server gets: the same hands in the camera's space.
    joints, vertices = (np.array(part) for part in json.loads((tmp_path / "pred.json").read_text()))
    ground_truth = open_freihand(data, "test").ground_truth(0)
    assert joints.shape == (1, 21, 3)
    assert vertices.shape == (1, *ground_truth.vertices.shape)
    assert (vertices[..., 2] > 0).all()
    error = (
        aligned(torch.from_numpy(joints), torch.from_numpy(ground_truth.joints)[None])
        - torch.from_numpy(ground_truth.joints)
    ).norm(dim=2)
    assert 1000 * error.mean().item() == pytest.approx(fused["pa_mpjpe"], abs=1e-2)
    prediction = fastvit.Predictor(trained, runtime="torch")(open_freihand(data, "test").image(0))[0]
    seen = project(joints, ground_truth.intrinsics)[0]
    np.testing.assert_allclose(seen[ROOT], prediction.joints_2d[ROOT], atol=0.1)


def test_evaluation_without_truth_writes_for_the_server(trained: Path, data: Path, tmp_path: Path) -> None:
    copied = Path(shutil.copytree(data, tmp_path / "data"))
    for kind in ("xyz", "verts", "mano"):
        (copied / f"evaluation_{kind}.json").unlink()
    options = ("--data", copied, "--num-workers", 0, "--device", "cpu")
    found = json.loads(succeeded("eval", trained, *options, "--json", "--out", tmp_path / "out", run=inside))
    assert found["pa_mpjpe"] is None
    assert found["images"] == 1
    assert len(json.loads((tmp_path / "out" / "pred.json").read_text())[0]) == 1


def test_examples_leave_out_what_cannot_be_decoded(trained: Path, data: Path, tmp_path: Path) -> None:
    copied = Path(shutil.copytree(data, tmp_path / "data"))
    picture = copied / "training" / "rgb" / "00000000.jpg"
    picture.write_bytes(picture.read_bytes()[:300])
    made = examples(fastvit.Predictor(trained, runtime="torch"), open_freihand(copied, "train"))
    assert [Path(example.name).stem for example in made] == [f"{index:08d}" for index in range(1, 6)]


def test_predictions(trained: Path, data: Path, tmp_path: Path) -> None:
    pictures = data / "training" / "rgb"
    one = pictures / "00000000.jpg"
    # By the command as a person starts it.
    text = succeeded("predict", trained, one, "--draw", tmp_path / "drawn", "--mesh", tmp_path / "hand.obj", "--json")
    line, *rest = text.splitlines()
    (hand,) = json.loads(line)["predictions"]
    assert hand["side"] in ("right", "left")
    assert set(hand["joints_2d"]) == set(JOINTS)
    assert rest == [f"{tmp_path / 'drawn'}: 1 image with predictions", f"{tmp_path / 'hand.obj'}: 1 mesh"]
    with Image.open(tmp_path / "drawn" / "00000000.png") as drawn:
        assert min(drawn.size) >= 384
    lines = (tmp_path / "hand.obj").read_text().splitlines()
    assert sum(line.startswith("v ") for line in lines) == 1102
    text = succeeded("predict", trained, pictures, "--mesh", tmp_path / "meshes", run=inside)
    assert "hand, box " in text
    assert " px, length " in text
    assert len(list((tmp_path / "meshes").glob("*.obj"))) == 6
    assert "one file for 6 images" in complaint("predict", trained, pictures, "--mesh", tmp_path / "a.ply", run=inside)


def test_fuse_and_report(trained: Path, tmp_path: Path) -> None:
    text = succeeded("fuse", trained, "--out", tmp_path / "fused.safetensors", run=inside)
    assert "parameters; " in text
    assert fastvit.form(fastvit.load(tmp_path / "fused.safetensors")) == "fused"
    page = tmp_path / "report.html"
    text = succeeded("compare", trained, tmp_path / "fused.safetensors", "--no_latency", "--out", page, run=inside)
    assert "PA-MPJPE" in text
    assert " mm" in text


@pytest.mark.slow
def test_an_export_scores_as_its_checkpoint(trained: Path, data: Path, tmp_path: Path) -> None:
    text = succeeded("export", trained, "--out", tmp_path / "onnx", "--data", data, run=inside)
    assert "onnxruntime: max abs" in text
    (artifact,) = (tmp_path / "onnx").glob("*.onnx")
    options = ("--data", data, "--num-workers", 0, "--json")
    ours, theirs = (json.loads(succeeded("eval", source, *options, run=inside)) for source in (trained, artifact))
    assert theirs["runtime"] == "onnxruntime"
    assert theirs["pa_mpjpe"] == pytest.approx(ours["pa_mpjpe"], abs=1e-2)


def test_a_run_goes_on_where_it_was_ended(trained: Path, data: Path, tmp_path: Path) -> None:
    """SIGTERM inside the second epoch; bit for bit as if nothing had been."""
    out = tmp_path / "run"
    recipe = parse_recipe([f"--data={data}", f"--out={out}", *SHARED])
    with pytest.raises(Terminated):
        train(recipe, [SignalAt(4, signal.SIGTERM)])
    train(parse_recipe([f"--resume={out}"]))
    for name in ("best", "last"):
        ours, theirs = (fastvit.load(folder / f"{name}.safetensors").state_dict() for folder in (trained, out))
        assert all(torch.equal(ours[key], theirs[key]) for key in ours), name
    assert rows(out) == rows(trained)


MISTAKES = [
    (
        ("train", "--task=hand_mesh", "--data=nowhere"),
        f"the folder {Path.cwd()}/nowhere does not exist; write synthetic hands with: fastvit synth hands",
    ),
    (("train", "--task=hand_mesh", "--data={data}", "--hand_mesh.size=8"), "hand_mesh.size must be at least 32"),
    (("train", "--task=hand_mesh", "--data={data}", "--hand_mesh.hflip=0.5"), "set hand_mesh.network.sides to both"),
    (("train", "--task=hand_mesh", "--data={data}", "--hand_mesh.network.head=cnn"), "--hand-mesh.network.head"),
    (("train", "--task=hand_mesh", "--data={data}", "--hand_mesh.hand=no.pkl"), "the hand model no.pkl does not exist"),
    (("train", "--task=hand_mesh", "--data={data}", "--val_fraction=0.1"), "val_fraction does not apply to hand_mesh"),
    (("train", "--task=hand_mesh", "--data={data}", "--model.size=96"), "give hand_mesh.size"),
    (
        ("eval", "{run}", "--data", "sample"),
        f"the folder {Path.cwd()}/sample does not exist; write synthetic hands with: fastvit synth hands",
    ),
    (("eval", "{run}", "--data", "{data}", "--size", "96"), "has the fixed image size 64x64 pixels"),
    (
        ("eval", "{run}", "--data", "{data}", "--crop_pct", "0.9"),
        "--crop-pct is for classification",
    ),
    (("robustness", "{run}", "--data", "{data}"), "classif"),
    (("predict", "{run}", "none.jpg"), "none.jpg does not exist"),
    (("export", "{run}", "--output", "objects"), "does not have the output 'objects'; choose from mesh, features"),
    (("export", "{run}", "--size", "dynamic"), "exported for one size of images"),
    (("export", "{run}", "--precision", "int8"), "int8 is not available for"),
    (("synth", "hands", "{data}"), "already contains synthetic hands: replace them with --overwrite"),
    (("synth", "hands", "{data}/README.md"), "is a file: give a folder to write the hands to"),
    (("bench", "hand-t9"), "t9"),
]


@pytest.mark.parametrize(("arguments", "message"), MISTAKES, ids=[" ".join(words[:3]) for words, _ in MISTAKES])
def test_mistakes_are_told_in_a_line(arguments: tuple[str, ...], message: str, trained: Path, data: Path) -> None:
    filled = [argument.format(run=trained, data=data) for argument in arguments]
    assert message in complaint(*filled, run=inside)


@pytest.mark.slow
@pytest.mark.parametrize("head", ["mlp", "tokens"])
def test_sixteen_pictures_are_learnt_by_heart(head: str, tmp_path: Path) -> None:
    """To under a millimeter."""
    data = tmp_path / "data"
    write_hands(data, 16, SIDE, num_workers=0)
    for kind in ("K", "mano", "scale", "verts", "xyz"):
        shutil.copy(data / f"training_{kind}.json", data / f"evaluation_{kind}.json")
    shutil.rmtree(data / "evaluation")
    shutil.copytree(data / "training", data / "evaluation")
    options = (
        *("--task=hand_mesh", f"--data={data}", "--device=cpu", "--batch_size=16", "--num-workers=0", "--epochs=400"),
        *(f"--hand_mesh.size={SIDE}", f"--hand_mesh.network.head={head}", "--hand_mesh.rotation=0"),
        *("--hand_mesh.scale=[1,1]", "--hand_mesh.translation=0", "--hand_mesh.color=0", "--optim.lr=2e-3"),
        *("--optim.min_lr=1e-6", "--optim.weight_decay=0", "--ema.decay=0.9", "--checkpoint_every=0"),
        *("--model.layer_scale_init=0.1", f"--out={tmp_path / 'run'}", "--optim.warmup_epochs=5"),
    )
    done = train(parse_recipe(list(options)))
    assert done.score < 1


@pytest.mark.slow
def test_two_processes_are_one(data: Path, tmp_path: Path) -> None:
    text = succeeded("train", f"--data={data}", f"--out={tmp_path / 'run'}", *SHARED, "--devices=2", "--batch_size=3")
    assert "PA-MPJPE" in text
