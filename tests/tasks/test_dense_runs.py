"""Detection and segmentation as a person does them: from scenes to a trained, proved and exported network."""

from __future__ import annotations

import copy
import csv
import json
import shutil
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from PIL import Image
from pycocotools import mask as coco
from safetensors.torch import load_file
from torch.nn.modules.batchnorm import _BatchNorm
from torchvision.models.detection._utils import BoxCoder
from torchvision.ops import boxes as box_ops
from torchvision.ops import poolers

import fastvit
from fastvit.data.load import open_images
from fastvit.export.export import Exported, export
from fastvit.export.options import ExportOptions
from fastvit.export.program import build_program
from fastvit.export.proof import prepared
from fastvit.export.target import TARGETS
from fastvit.fusion import fuse
from fastvit.numerics import compare
from fastvit.runs.files import STATE
from fastvit.runtime.artifact import RUNTIMES, Signature, open_artifact, to_metadata
from fastvit.synthetic.scenes import make_scene
from fastvit.tasks.detection.model import Detector
from fastvit.tasks.detection.proof import prove_artifact, prove_forms
from fastvit.tasks.detection.tracing import traceable
from fastvit.training.checkpoint import AtomicCheckpointIO, Terminated
from fastvit.training.recipe import parse_recipe
from fastvit.training.train import train
from fastvit.weights.description import METADATA_KEY, Description
from tests.helpers import randomize, tiny
from tests.tasks.contracts import CLASSES, DETECTORS, lively, make_detector, make_segmenter
from tests.test_cli import complaint, inside, succeeded
from tests.training.runs import SignalAt

# Of pycocotools' own arrays.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation")

SIDE = 64
# What makes runs short; an object is found wherever the network is not sure that there is none.
SHARED = (
    *("--device=cpu", "--epochs=2", "--batch_size=2", "--num-workers=0", "--optim.warmup_epochs=0", "--optim.lr=1e-4"),
    *("--model.layer_scale_init=0.1", "--checkpoint_every=2"),
)
# Few objects are likely after so little training.
SCORE = {"detection": ("--score", "0.02"), "segmentation": ()}
OPTIONS = {
    "detection": (
        *("--detection.network.kind=faster_rcnn", "--detection.network.fpn-channels=32"),
        *("--detection.network.anchor-size=8", "--detection.network.roi-batch-size=32"),
        *("--detection.network.post-nms-top-n=40", "--detection.network.score-thresh=0.01"),
        *("--detection.network.max-detections=20", f"--detection.size=[{SIDE},{SIDE}]"),
    ),
    "segmentation": (
        *("--segmentation.network.fpn_channels=24", "--segmentation.network.head_channels=16"),
        *(f"--segmentation.size=[{SIDE},{SIDE}]", f"--segmentation.crop={SIDE}"),
    ),
}
HEADLINES = {"detection": "box_ap", "segmentation": "miou"}


def arguments(task: str, data: Path, out: Path, *more: str) -> list[str]:
    return ["train", f"--task={task}", f"--data={data}", f"--out={out}", *SHARED, *OPTIONS[task], *more]


def run(task: str, data: Path, out: Path, *more: str, callbacks: tuple[SignalAt, ...] = ()) -> Path:
    """The same in this process."""
    train(parse_recipe(arguments(task, data, out, *more)[1:]), list(callbacks))
    return out


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six scenes to train on and one to validate on."""
    folder = tmp_path_factory.mktemp("dense") / "scenes"
    assert "6 train scenes" in succeeded("synth", "scenes", folder, "--images", 6, "--size", SIDE, run=inside)
    return folder


@pytest.fixture(scope="module", params=list(OPTIONS))
def task(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def trained(task: str, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two epochs of three steps each."""
    out = tmp_path_factory.mktemp(task) / "run"
    text = succeeded(*arguments(task, data, out), run=inside)
    assert f"{out}/best.safetensors" in text
    return out


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "metrics.csv").open(newline="") as file:
        return [{k: v for k, v in row.items() if k != "train/images_per_second"} for row in csv.DictReader(file)]


def test_a_run_leaves_what_is_promised(task: str, trained: Path, data: Path) -> None:
    made = {path.name for path in trained.iterdir()}
    assert {"best.safetensors", "last.safetensors", "recipe.yaml", "metrics.csv", "report.html", STATE} <= made
    logged = [row for row in rows(trained) if row[f"val/{HEADLINES[task]}"]]
    assert len(logged) == 2
    assert all(float(row["train/loss_epoch"]) > 0 for row in logged)
    model = fastvit.load(trained)
    assert (model.task, fastvit.form(model), model.preprocessing.resize) == (task, "train", "resize_shorter")
    assert model.preprocessing.size == (SIDE, SIDE)
    names = json.loads((data / "annotations" / "instances_train.json").read_text())["categories"]
    expected = tuple(one["name"] for one in names)
    assert model.classes == (expected if task == "detection" else ("background", *expected))
    text = succeeded("info", trained, run=inside)
    for part in (task, "train", f"within {SIDE}x{SIDE}", f"{model.num_classes}: ", HEADLINES[task], "network"):
        assert part in text, part
    page = (trained / "report.html").read_text()
    assert "Training" in page


def test_evaluation_is_that_of_the_run(task: str, trained: Path, data: Path, tmp_path: Path) -> None:
    """Train form, fused form, and what was logged in training; then as files."""
    headline = HEADLINES[task]
    best = max(float(row[f"val/{headline}"]) for row in rows(trained) if row[f"val/{headline}"])
    options = ("--data", data, "--num-workers", 0, "--device", "cpu", "--json")
    plain = json.loads(succeeded("eval", trained, *options[2:], "--form", "train", run=inside))  # of the run's own data
    assert (plain["images"], plain["task"], plain["form"], plain["size"]) == (1, task, "train", [SIDE, SIDE])
    assert plain[headline] == pytest.approx(best, abs=1e-6)
    fused = json.loads(succeeded("eval", trained, *options, "--out", tmp_path / "out", run=inside))
    assert fused["form"] == "fused"
    assert fused[headline] == pytest.approx(best, abs=2e-3)
    written = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    assert written[headline] == fused[headline]
    assert set(written["per_class"]) == set(fastvit.load(trained).classes)
    assert "<h2>Examples</h2>" in (tmp_path / "out" / "evaluation.html").read_text()
    table = succeeded("eval", trained, *options[:-1], "--per_class", run=inside)
    assert "T-shirt/top" in table
    other = json.loads(succeeded("eval", trained, *options, "--size", "96x96", run=inside))
    assert other["size"] == [96, 96]


def test_predictions(task: str, trained: Path, data: Path, tmp_path: Path) -> None:
    """Every image in its own size, drawn and told."""
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    paths = sorted((data / "images" / "val").iterdir()) + sorted((data / "images" / "train").iterdir())[:1]
    sizes = [(SIDE, SIDE), (50, 41)]
    for index, (path, size) in enumerate(zip(paths, sizes, strict=True)):
        Image.open(path).resize(size).save(pictures / f"{index}.png")
    options = (*SCORE[task], "--draw", tmp_path / "drawn", "--device", "cpu")
    text = succeeded("predict", trained, pictures, "--json", *options, run=inside)
    lines = [json.loads(line) for line in text.splitlines() if line.startswith("{")]
    assert [line["image"] for line in lines] == [str(pictures / "0.png"), str(pictures / "1.png")]
    model = fastvit.load(trained)
    predictions = fastvit.Predictor(model)(pictures, score=0.02)
    for line, (width, height), prediction in zip(lines, sizes, predictions, strict=True):
        if task == "segmentation":
            decoded = sum(coco.decode(one["segmentation"]).astype(int) for one in line["predictions"])
            assert decoded.shape == (height, width)
            assert (decoded == 1).all()
            assert sum(one["share"] for one in line["predictions"]) == pytest.approx(1, abs=1e-3)
        else:
            assert len(line["predictions"]) == len(prediction.objects.scores) > 0
            for one in line["predictions"]:
                left, top, across, down = one["bbox"]
                assert -0.01 <= left <= left + across <= width + 0.02
                assert -0.01 <= top <= top + down <= height + 0.02
                assert one["score"] >= 0.02
                assert one["category"] == model.classes[one["category_id"] - 1]
    assert {path.name for path in (tmp_path / "drawn").iterdir()} == {"0.png", "1.png"}
    assert all(min(Image.open(path).size) >= 41 for path in (tmp_path / "drawn").iterdir())
    told = succeeded("predict", trained, pictures / "0.png", *SCORE[task], run=inside)
    assert "prediction" in told


@pytest.mark.parametrize(
    "task", ["detection", pytest.param("segmentation", marks=pytest.mark.slow)], indirect=True, scope="module"
)
def test_fused_and_side_by_side(task: str, trained: Path, tmp_path: Path) -> None:
    fused = tmp_path / "fused.safetensors"
    text = succeeded("fuse", trained, "--out", fused, run=inside)
    assert (": boxes differ" if task == "detection" else "relative") in text
    before, after = fastvit.load(trained), fastvit.load(fused)
    assert fastvit.form(after) == "fused"
    assert not [m for m in after.modules() if isinstance(m, _BatchNorm)]
    assert (after.classes, after.options, after.preprocessing) == (before.classes, before.options, before.preprocessing)
    assert "is already fused" in complaint("fuse", fused, run=inside)
    page = tmp_path / "report.html"
    options = ("--no_latency", "--out", page)
    table = succeeded("compare", trained, fused, *options, run=inside)
    assert {"detection": "box AP", "segmentation": "mIoU"}[task] in table
    assert page.read_text().count("<h2>") >= 2


@pytest.mark.parametrize(
    "task", ["segmentation", pytest.param("detection", marks=pytest.mark.slow)], indirect=True, scope="module"
)
def test_export_from_end_to_end(task: str, trained: Path, data: Path, tmp_path: Path) -> None:
    """Artifact and checkpoint say the same of images of the artifact's own size."""
    out = tmp_path / "out"
    text = succeeded("export", trained, "--to", "onnx", "--out", out, "--images", 3, "--data", data, run=inside)
    assert "report.html" in text
    (artifact,) = out.glob("*.onnx")
    assert (out / "report.json").exists()
    signature = open_artifact(artifact).signature
    names = {"segmentation": ("logits",), "detection": ("boxes", "labels", "scores")}[task]
    assert (signature.size, signature.outputs) == ((SIDE, SIDE), names)
    images, headline = data / "images" / "train", HEADLINES[task]
    ours, theirs = (fastvit.Predictor(source)(images) for source in (str(trained / "best.safetensors"), artifact))
    assert len(ours) == len(theirs) == 6
    for one, other in zip(ours, theirs, strict=True):
        if task == "segmentation":
            assert (one.mask != other.mask).mean() < 0.002
        else:
            np.testing.assert_array_equal(one.objects.labels, other.objects.labels)
            np.testing.assert_allclose(one.objects.boxes, other.objects.boxes, rtol=0, atol=1e-2)
            np.testing.assert_allclose(one.objects.scores, other.objects.scores, rtol=0, atol=1e-4)
    options = ("--data", data, "--num-workers", 0, "--device", "cpu", "--json")
    first, second = (
        json.loads(succeeded("eval", source, *options, run=inside))[headline] for source in (trained, artifact)
    )
    assert second == pytest.approx(first, abs=5e-3)
    told = succeeded("predict", artifact, images / "000000.png", "--json", *SCORE[task], run=inside)
    line = json.loads(told.splitlines()[0])
    assert line["predictions"]
    refusal = {"segmentation": "has the fixed image size 64x64 pixels", "detection": "within 64x64 pixels"}
    assert refusal[task] in complaint("eval", artifact, "--data", data, "--size", "96x96", run=inside)


# What stays the same, and what is learnt.


@pytest.mark.slow
@pytest.mark.parametrize("way", ["frozen", "trained", "freeze"])
def test_norms_and_backbone_are_frozen_or_learn(data: Path, tmp_path: Path, way: str) -> None:
    start = fastvit.save(randomize(fastvit.create_model("t8", num_classes=3)), tmp_path / "start.safetensors")
    asked = {"frozen": "--batchnorm=frozen", "trained": "--batchnorm=train", "freeze": "--model.freeze=true"}[way]
    more = ("--epochs=1", f"--model.weights={start}", "--detection.network.kind=retinanet", asked)
    out = run("detection", data, tmp_path / "run", *more)
    before = fastvit.load(start, fastvit.FastViT).backbone
    model = fastvit.load(out / "trained.safetensors")
    assert fastvit.form(model) == "train"
    norms = {name for name, module in before.named_modules() if isinstance(module, _BatchNorm)}
    after = model.trunk.state_dict()
    same = {name: torch.equal(after[name], tensor) for name, tensor in before.state_dict().items()}
    of_norms = [equal for name, equal in same.items() if name.rpartition(".")[0] in norms]
    others = [equal for name, equal in same.items() if name.rpartition(".")[0] not in norms]
    assert all(of_norms) == (way != "trained")
    assert all(others) == (way == "freeze")
    averaged = fastvit.load(out / "last.safetensors").trunk.state_dict()
    if way != "trained":
        assert all(
            torch.equal(averaged[name], tensor)
            for name, tensor in before.state_dict().items()
            if name.rpartition(".")[0] in norms
        )
    torch.manual_seed(0)
    head = [p for name, p in model.named_parameters() if "body" not in name and name.endswith("bias")]
    assert any(p.abs().max() > 0 for p in head), "the head learns"
    if way == "frozen":
        images = torch.randn(1, 3, SIDE, SIDE)
        with torch.no_grad():  # a run with frozen norms gives an ordinary model
            fused = fuse(model).trunk(images)
            for one, other in zip(model.trunk(images), fused, strict=True):
                torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-3 * float(one.abs().max()))


# Runs that were ended.


def assert_same(ours: Path, theirs: Path) -> None:
    for name in ("best", "last", "trained"):
        states = [load_file(folder / f"{name}.safetensors") for folder in (ours, theirs)]
        assert states[0].keys() == states[1].keys()
        assert all(torch.equal(states[0][key], states[1][key]) for key in states[0]), name
    steps = [AtomicCheckpointIO().load_checkpoint(folder / STATE)["global_step"] for folder in (ours, theirs)]
    assert steps[0] == steps[1]
    assert rows(ours) == rows(theirs)


@pytest.mark.parametrize(
    "task", ["segmentation", pytest.param("detection", marks=pytest.mark.slow)], indirect=True, scope="module"
)
def test_a_run_that_was_ended_goes_on(task: str, trained: Path, data: Path, tmp_path: Path) -> None:
    """SIGTERM inside the second epoch, after the checkpoint of which it goes on; bit for bit as if nothing had been."""
    with pytest.raises(Terminated, match="after step 5"):
        run(task, data, tmp_path / "run", callbacks=(SignalAt(4, signal.SIGTERM),))
    train(parse_recipe(["--resume", str(tmp_path / "run")]))
    assert_same(tmp_path / "run", trained)


@pytest.mark.slow
def test_a_killed_process_goes_on(task: str, trained: Path, data: Path, tmp_path: Path) -> None:
    code = (
        "import sys, signal\nfrom pathlib import Path\nimport torch\ntorch.set_num_threads(1)\n"
        "from tests.tasks.test_dense_runs import run\nfrom tests.training.runs import SignalAt\n"
        "run(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]), callbacks=(SignalAt(5),))\n"
    )
    out = tmp_path / "run"
    ended = subprocess.run([sys.executable, "-c", code, task, str(data), str(out)], capture_output=True, text=True)
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    succeeded("train", "--resume", out)
    assert_same(out, trained)


# Several processes.

# As in tests.training.test_processes; and no pixel is ignored, of which processes would have different counts.
QUIET = ("--optim.lr=1e-6", "--optim.min_lr=1e-7", "--ema.decay=0")
OF_TASK = {
    "segmentation": (
        *("--batchnorm=sync", "--segmentation.network.dropout=0"),
        *("--segmentation.scale-range=[1,1]", "--segmentation.cat-max-ratio=1"),
    ),
    "detection": ("--batchnorm=frozen",),
}


@pytest.mark.slow
def test_two_processes(task: str, data: Path, tmp_path: Path) -> None:
    """Of segmentation, with sync batch norm, what one process does with their batches together; of detection, whose
    losses are means over the objects of a process's images, a run that ends well with metrics over all images."""
    own = OF_TASK[task]
    succeeded(*arguments(task, data, tmp_path / "two", *QUIET, *own, "--devices=2", "--batch_size=2"))
    one = [option.replace("=sync", "=train") for option in own]
    alone = run(task, data, tmp_path / "one", *QUIET, *one, "--batch_size=4")
    ours, theirs = rows(tmp_path / "two"), rows(alone)
    headline = f"val/{HEADLINES[task]}"
    assert len([row for row in ours if row[headline]]) == len([row for row in theirs if row[headline]]) == 2
    if task == "detection":
        states = [load_file(folder / "last.safetensors") for folder in (tmp_path / "two", alone)]
        assert states[0].keys() == states[1].keys()
        assert all(value.isfinite().all() for value in states[0].values())
        return
    for name in ("train/loss_epoch", "val/loss", headline):
        values = [[float(row[name]) for row in found if row[name]] for found in (ours, theirs)]
        assert values[0] == pytest.approx(values[1], rel=1e-4, abs=1e-4), name
    states = [load_file(folder / "last.safetensors") for folder in (tmp_path / "two", alone)]
    for key, value in states[1].items():
        if value.is_floating_point():
            torch.testing.assert_close(states[0][key], value, rtol=1e-4, atol=5e-5, msg=key)


# Proofs of exports.


def scenes(count: int, size: tuple[int, int] = (SIDE, 96)) -> list[Image.Image]:
    items = open_images("sample", "test")
    made = [make_scene(items, 96, np.random.default_rng([7, index])).image for index in range(count)]
    return [Image.fromarray(one).resize((size[1], size[0])) for one in made]


def detector(kind: str, **options: object) -> fastvit.tasks.detection.model.Detector:
    torch.manual_seed(0)
    preprocessing = fastvit.Preprocessing((SIDE, 96), resize="resize_shorter", interpolation="bilinear")
    return lively(make_detector(kind, preprocessing=preprocessing, classes=CLASSES, **options)).eval()


# Landscape, portrait, 4:3, square, narrow: of no other shape than the canvas's own is all of it image.
SHAPES = ((96, 96), (64, 96), (96, 64), (72, 96), (40, 96), (96, 40), (80, 80), (17, 90), (90, 17), (33, 31))


@pytest.fixture(
    scope="module",
    params=[pytest.param(kind, marks=() if kind == "faster_rcnn" else pytest.mark.slow) for kind in DETECTORS],
)
def exported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Detector, Exported]:
    """A detector of each kind and what its export made."""
    model = detector(request.param)
    path = tmp_path_factory.mktemp("detector") / "model.onnx"
    return model, export(model, TARGETS["onnx"], path, scenes(3), ExportOptions())


def test_a_detectors_artifact(exported: tuple[Detector, Exported]) -> None:
    model, done = exported
    proof = done.proof
    assert proof is not None
    assert proof.objects is not None
    assert proof.objects.objects >= 200
    assert proof.objects.unpaired == 0
    assert proof.differences.relative < 1e-4
    assert (proof.objects.masks is not None) == model.options.masks
    assert (proof.images, proof.crops) == (3, 2 * 3), "crops of three shapes"
    assert proof.resized is None, "the images are as large as the checkpoint sees them"
    artifact = open_artifact(done.path)
    assert artifact.signature.inputs == model.input_names == ("images", "image_size")
    assert artifact.signature.outputs == model.output_names
    assert artifact.signature.size == (96, 96), "room for the longer side either way"
    assert (artifact.description.task, artifact.description.classes) == ("detection", CLASSES)
    assert artifact.description.options == model.options
    assert artifact.description.preprocessing == model.preprocessing


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_an_artifact_finds_what_the_checkpoint_finds(
    exported: tuple[Detector, Exported], runtime: str, tmp_path: Path
) -> None:
    """In images of any shape, each side with its own preprocessing; not one object more or less."""
    if reason := RUNTIMES[runtime].available():
        pytest.skip(reason)
    model, done = exported
    checkpoint = fastvit.save(model, tmp_path / "model.safetensors")
    pictures = [scenes(1, shape)[0] for shape in (*SHAPES, (200, 90))]
    sides = fastvit.Predictor(checkpoint)(pictures), fastvit.Predictor(done.path, runtime=runtime)(pictures)
    for picture, one, other in zip(pictures, *sides, strict=True):
        ours, theirs = one.objects, other.objects
        assert len(ours.scores) == len(theirs.scores) >= 10, picture.size
        np.testing.assert_array_equal(ours.labels, theirs.labels)
        np.testing.assert_allclose(ours.scores, theirs.scores, rtol=0, atol=1e-4)
        np.testing.assert_allclose(ours.boxes, theirs.boxes, rtol=0, atol=1e-2)
        if model.options.masks:
            assert ours.masks.shape == theirs.masks.shape == (len(ours.scores), picture.height, picture.width)
            assert (ours.masks != theirs.masks).mean() < 1e-3
        sizes = theirs.boxes[:, 2:] - theirs.boxes[:, :2]
        assert (sizes > 0).all(), "no sliver of what is filled up"


def test_what_is_around_an_image_does_not_matter(exported: tuple[Detector, Exported]) -> None:
    model, done = exported
    artifact = open_artifact(done.path, "onnxruntime")
    image = torch.from_numpy(prepared(scenes(1, (50, 96)), model.preprocessing, "normalized"))
    size = np.array([image.shape[2:]])
    with torch.no_grad():
        expected = [output.numpy() for output in model.outputs(image)]
    for filling in (0.0, 3.0, float("nan")):
        canvas = np.full((1, 3, 96, 96), filling, np.float32)
        canvas[:, :, : size[0, 0], : size[0, 1]] = image
        for one, other in zip(expected, artifact(canvas, size).values(), strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-3)
    # All of it, flat: other counts of objects, none at all among them.
    for value in (0.0, -3.0, 3.0):
        flat = torch.full((1, 3, 96, 96), value)
        with torch.no_grad():
            expected = [output.numpy() for output in model.outputs(flat)]
        outputs = list(artifact(flat.numpy()).values())
        assert [len(output) for output in outputs] == [len(output) for output in expected]
    for wrong in ([[97, 96]], [[0, 5]], [[5, 5], [5, 5]], [5, 5]):
        with pytest.raises(fastvit.UserError, match="image_size must have the shape"):
            artifact(canvas, np.array(wrong))


def test_the_proof_refuses_what_takes_the_canvas_for_image(exported: tuple[Detector, Exported], tmp_path: Path) -> None:
    """As artifacts without the size of the image do: what they find in what is filled up, the checkpoint does not."""
    from fastvit.export.proof import TOLERANCES

    model, done = exported
    graph = onnx.load(done.path)
    graph.graph.initializer.append(onnx.numpy_helper.from_array(np.array([[96, 96]]), "whole"))
    for node in graph.graph.node:
        node.input[:] = ["whole" if name == "image_size" else name for name in node.input]
    onnx.save(graph, tmp_path / "deaf.onnx")
    deaf = open_artifact(tmp_path / "deaf.onnx", "onnxruntime")
    assert done.proof is not None
    assert not TOLERANCES["fp32"].missed(done.proof)
    proof = prove_artifact(model, deaf, scenes(2, (96, 96)))
    assert any("detected by only one of the two" in reason for reason in TOLERANCES["fp32"].missed(proof))


@pytest.mark.slow
def test_a_size_of_ones_own(tmp_path: Path) -> None:
    """Pixels of another size than the checkpoint's: equal for images of that size; what the size costs is said."""
    model = detector("retinanet")
    options = ExportOptions(size=(64, 80), input="pixels")
    done = export(model, TARGETS["onnx"], tmp_path / "model.onnx", scenes(2), options)
    assert done.proof is not None
    assert done.proof.objects is not None
    assert done.proof.objects.unpaired == 0
    assert done.proof.resized is not None
    assert done.proof.resized.images == done.proof.images + done.proof.crops
    assert "by the artifact only" in str(done.proof)
    artifact = open_artifact(done.path)
    assert (artifact.signature.size, artifact.signature.input) == ((64, 80), "pixels")
    assert artifact.description.preprocessing.resize == "letterbox"
    small = copy.deepcopy(model)
    small.preprocessing = artifact.description.preprocessing
    for shape in ((64, 96), (90, 17)):
        (one,), (other,) = (fastvit.Predictor(source)(scenes(1, shape)) for source in (small, done.path))
        np.testing.assert_array_equal(one.objects.labels, other.objects.labels)
        np.testing.assert_allclose(one.objects.boxes, other.objects.boxes, rtol=0, atol=1e-2)


def test_artifacts_that_do_not_take_the_size_run_as_they_did(tmp_path: Path) -> None:
    """As they were written before: one input, images that are filled up, boxes clipped when they are decoded."""
    model = detector("faster_rcnn")
    values = {"boxes": [[10, 5, 40, 50], [80, 2, 95, 30]], "labels": [1, 2], "scores": [0.9, 0.5]}
    arrays = {name: np.array(value, np.int64 if name == "labels" else np.float32) for name, value in values.items()}
    nodes = [
        onnx.helper.make_node("Constant", [], [name], value=onnx.numpy_helper.from_array(array))
        for name, array in arrays.items()
    ]
    images = onnx.helper.make_tensor_value_info("images", onnx.TensorProto.FLOAT, (1, 3, 64, 96))
    outputs = [onnx.helper.make_tensor_value_info(name, *_type(array)) for name, array in arrays.items()]
    graph = onnx.helper.make_model(
        onnx.helper.make_graph(nodes, "old", [images], outputs), opset_imports=[onnx.helper.make_opsetid("", 18)]
    )
    graph.ir_version = 10
    model.preprocessing = model.preprocessing.with_shape((64, 96))
    signature = Signature("fp32", "normalized", 1, (64, 96), model.output_names, "0" * 64)
    content = json.loads(to_metadata(Description.of(model), signature))
    del content["artifact"]["inputs"]
    onnx.helper.set_model_props(graph, {METADATA_KEY: json.dumps(content)})
    onnx.save(graph, tmp_path / "old.onnx")
    assert open_artifact(tmp_path / "old.onnx").signature == signature
    (prediction,) = fastvit.Predictor(tmp_path / "old.onnx")(Image.new("RGB", (60, 80)))  # at 48 x 64 of the canvas
    assert prediction.objects.boxes.tolist() == [[12.5, 6.25, 50, 62.5], [60, 2.5, 60, 37.5]]


def _type(array: np.ndarray) -> tuple[int, tuple[int, ...]]:
    return onnx.helper.np_dtype_to_tensor_dtype(array.dtype), array.shape


def test_where_nothing_is_found_nothing_is_proved(tmp_path: Path) -> None:
    silent = detector("faster_rcnn", score_thresh=1.0)
    with pytest.raises(fastvit.UserError, match="detects nothing in the images"):
        prove_forms(silent, fastvit.fuse(silent), scenes(2))


def test_a_wrong_fusion_of_a_detector_is_refused() -> None:
    """The proof sees an error of the backbone."""
    from fastvit.export.proof import TOLERANCES

    model = detector("faster_rcnn")
    fused = fastvit.fuse(model)
    assert not TOLERANCES["fp32"].missed(prove_forms(model, fused, scenes(2)))
    with torch.no_grad():
        fused.trunk.stages[1].embed.large.bias.add_(0.05)
    assert TOLERANCES["fp32"].missed(prove_forms(model, fused, scenes(2)))


@pytest.mark.slow
def test_the_pyramid_of_a_detector_with_any_batch(tmp_path: Path) -> None:
    model = detector("retinanet")
    path = tmp_path / "model.onnx"
    options = ExportOptions(output="features", batch="dynamic")
    exported = export(model, TARGETS["onnx"], path, scenes(2), options)
    assert exported.proof is not None
    assert exported.proof.differences.relative < 1e-5
    artifact = open_artifact(path, "onnxruntime")
    assert artifact.signature.outputs == tuple(f"stride{8 * 2**level}" for level in range(5))
    with pytest.raises(fastvit.UserError, match="which are not predictions"):
        fastvit.Predictor(path)
    generator = torch.Generator().manual_seed(0)
    for count in (1, 3):
        images = torch.randn(count, 3, 64, 96, generator=generator)
        with torch.no_grad():
            expected = list(model.pyramid(images).values())
        found = list(artifact(images.numpy()).values())
        assert [one.shape for one in found] == [tuple(one.shape) for one in expected]
        assert compare(expected, found).relative < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("head", ["fpn", "upernet"])
def test_a_segmenter_of_pixels_of_any_size(head: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    preprocessing = fastvit.Preprocessing((SIDE, 96), resize="resize_shorter", interpolation="bilinear")
    model = lively(make_segmenter(head, preprocessing=preprocessing, classes=CLASSES)).eval()
    path = tmp_path / "model.onnx"
    options = ExportOptions(size="dynamic", input="pixels")
    if head == "upernet":
        options = ExportOptions(input="pixels")
    exported = export(model, TARGETS["onnx"], path, scenes(2), options)
    assert exported.proof is not None
    assert exported.proof.differences.relative < 1e-5
    artifact = open_artifact(path, "onnxruntime")
    generator = np.random.default_rng(0)
    mean, std = (torch.tensor(v).view(-1, 1, 1) for v in (preprocessing.mean, preprocessing.std))
    for size in ((64, 96), *([(97, 64), (33, 130)] if head == "fpn" else [])):
        pixels = generator.integers(200, 256, (1, 3, *size), np.uint8)
        with torch.no_grad():
            expected = model((torch.from_numpy(pixels).float() / 255 - mean) / std)
        (found,) = artifact(pixels).values()
        assert found.shape == (1, len(CLASSES), *size)
        assert compare(expected, found).relative < 1e-5


def test_tracing_leaves_torchvision_as_it_was() -> None:
    """What is replaced to be traced is back afterwards, also when tracing fails."""
    before = box_ops.batched_nms, BoxCoder.decode, hasattr(poolers, "len")
    with pytest.raises(RuntimeError), traceable():
        raise RuntimeError(box_ops.batched_nms)
    assert (box_ops.batched_nms, BoxCoder.decode, hasattr(poolers, "len")) == before


def test_threads_that_trace_together_leave_torchvision_as_it_was() -> None:
    before = box_ops.batched_nms, BoxCoder.decode, hasattr(poolers, "len")
    model = detector("retinanet")
    images = torch.zeros(1, 3, 64, 96)
    together = threading.Barrier(3)

    @torch.no_grad()
    def trace() -> bool:
        together.wait()
        found = []
        for _ in range(5):
            with traceable():
                model.outputs(images)
                found.append(box_ops.batched_nms is not before[0] and hasattr(poolers, "len"))
        return all(found)

    with ThreadPoolExecutor(3) as threads:
        done = [threads.submit(trace) for _ in range(3)]
    assert all(one.result() for one in done)
    assert (box_ops.batched_nms, BoxCoder.decode, hasattr(poolers, "len")) == before


def test_tracing_changes_no_answer() -> None:
    model = detector("mask_rcnn")
    images = torch.from_numpy(prepared(scenes(1), model.preprocessing.with_shape((64, 96)), "normalized"))
    with torch.no_grad():
        expected = model.outputs(images)
        with traceable():
            found = model.outputs(images)
    for one, other in zip(expected, found, strict=True):
        assert torch.equal(one, other)


def test_the_program_is_the_model_for_normalized_images() -> None:
    model = detector("faster_rcnn")
    program = build_program(model, ExportOptions(input="pixels"))
    pictures = scenes(1)
    shown = prepared(pictures, model.preprocessing.with_shape((64, 96)), "normalized")
    pixels = prepared(pictures, model.preprocessing.with_shape((64, 96)), "pixels")
    with torch.no_grad():
        expected = model.outputs(torch.from_numpy(shown))
        found = program.module(torch.from_numpy(pixels))
    for name, one, other in zip(model.output_names, expected, found, strict=True):
        torch.testing.assert_close(other, one.float(), rtol=1e-4, atol=1e-3, msg=name)


# Mistakes.


@pytest.fixture(scope="module")
def files(data: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Checkpoints of each task, and folders of data with a mistake each."""
    root = tmp_path_factory.mktemp("mistakes")
    fit = fastvit.Preprocessing((SIDE, SIDE), resize="resize_shorter")
    names = tuple(json.loads((data / "annotations" / "instances_train.json").read_text())["categories"])
    items = tuple(one["name"] for one in names)
    config = tiny(num_classes=10, attention=True).config
    detectors = {kind: make_detector(kind, config, classes=items, preprocessing=fit) for kind in ("mask_rcnn",)}
    segmenter = make_segmenter("fpn", config.replace(num_classes=11), classes=("background", *items), preprocessing=fit)
    four = make_detector("retinanet", config.replace(in_chans=4), preprocessing=fit.for_channels(4))
    models = {
        "FOUR": four,
        "DETECTOR": detectors["mask_rcnn"],
        "SEGMENTER": segmenter,
        "CLASSIFIER": tiny(num_classes=10),
    }
    paths = {name: fastvit.save(model, root / f"{name.lower()}.safetensors") for name, model in models.items()}

    missing = root / "missing"
    shutil.copytree(data, missing)
    (missing / "images" / "train" / "000002.png").unlink()
    masks = root / "masks"
    shutil.copytree(data, masks)
    for split in ("train", "val"):
        for path in (masks / "masks" / split).iterdir():
            values = np.asarray(Image.open(path)).copy()
            values[:2] = 77
            Image.fromarray(values).save(path)
    broken = root / "broken"
    shutil.copytree(data, broken)
    (broken / "annotations" / "instances_train.json").write_text('{"images": [')
    only_masks = root / "only_masks"
    shutil.copytree(data, only_masks)
    shutil.rmtree(only_masks / "annotations")
    only_boxes = root / "only_boxes"
    shutil.copytree(data, only_boxes)
    shutil.rmtree(only_boxes / "masks")
    other = root / "other"
    shutil.copytree(data, other)
    for split in ("train", "val"):
        path = other / "annotations" / f"instances_{split}.json"
        path.write_text(path.read_text().replace('"Sneaker"', '"Trainer"'))
    nothing = root / "nothing"
    shutil.copytree(data, nothing)
    path = nothing / "annotations" / "instances_train.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"annotations": []}))
    (root / "empty").mkdir()
    (root / "file.txt").write_text("no image")
    picture = next((data / "images" / "val").iterdir())
    folders = {"MISSING": missing, "BADMASKS": masks, "BROKEN": broken, "MASKS": only_masks, "BOXES": only_boxes}
    others = {"OTHER": other, "DATA": data, "EMPTY": root / "empty", "PICTURE": picture, "FILE": root / "file.txt"}
    others |= {"NOTHING": nothing}
    return {name: str(path) for name, path in {**paths, **folders, **others, "OUT": root / "out"}.items()}


DETECT = ("train", "--task=detection", *SHARED, *OPTIONS["detection"], "--out=OUT")
SEGMENT = ("train", "--task=segmentation", *SHARED, *OPTIONS["segmentation"], "--out=OUT")
MISTAKES = [
    ((*DETECT, "--data=EMPTY"), ("empty", "COCO")),
    ((*DETECT, "--data=nowhere"), (f"the folder {Path.cwd()}/nowhere does not exist",)),
    ((*DETECT, "--data=sample"), ("sample",)),
    ((*DETECT, "--data=MISSING"), ("instances_train.json", "1 of the 6 images", "000002.png")),
    ((*DETECT, "--data=BROKEN"), ("instances_train.json", "not valid JSON")),
    ((*DETECT, "--data=MASKS"), ("only_masks", "no COCO annotations")),
    ((*DETECT, "--data=DATA", "--val_fraction=0.2"), ("val_fraction does not apply to detection",)),
    (
        (*DETECT, "--data=DATA", "--distillation.teacher=x"),
        (
            "--distillation.teacher is for classification",
            "leave it out",
        ),
    ),
    ((*DETECT, "--data=DATA", "--ema.recalibrate=2"), ("ema.recalibrate does not apply to detection",)),
    ((*DETECT, "--data=DATA", "--detection.network.kind=yolo"), ("detection.network.kind",)),
    (
        (*DETECT, "--data=DATA", "--detection.network.fpn-channels=0"),
        ("detection.network.fpn_channels must be at least 1",),
    ),
    (
        (*DETECT, "--data=DATA", "--detection.network.score-thresh=2"),
        ("detection.network.score_thresh must be from 0 to 1",),
    ),
    ((*DETECT, "--data=DATA", "--model.size=640"), ("give detection.size",)),
    ((*DETECT, "--data=NOTHING"), ("no training image of", "has an object")),
    ((*DETECT, "--data=DATA", "--detection.size=[0,64]"), ("detection.size",)),
    ((*DETECT, "--data=DATA", "--detection.hflip=2"), ("detection.hflip",)),
    ((*DETECT, "--data=DATA", "--batch_size=1"), ("batch_size must be at least 2",)),
    ((*DETECT, "--data=DATA", "--model.weights=SEGMENTER"), ("segmenter.safetensors", "segmentation")),
    ((*SEGMENT, "--data=EMPTY"), ("empty", "images/train")),
    ((*SEGMENT, "--data=BOXES"), ("only_boxes", "images without masks")),
    ((*SEGMENT, "--data=DATA", "--val_fraction=0.2"), ("val_fraction does not apply to segmentation",)),
    (
        (*SEGMENT, "--data=DATA", "--segmentation.network.slide-window=8"),
        ("segmentation.network.slide_window must be at least 32",),
    ),
    ((*SEGMENT, "--data=DATA", "--segmentation.network.dropout=1"), ("segmentation.network.dropout",)),
    ((*SEGMENT, "--data=DATA", "--segmentation.class_weights=[1,2]"), ("class_weights has 2 values for 11 classes",)),
    ((*SEGMENT, "--data=DATA", "--segmentation.class_weights=[-1,2]"), ("class_weights must be at least 0",)),
    ((*SEGMENT, "--data=DATA", "--segmentation.cat-max-ratio=0"), ("cat_max_ratio must be above 0",)),
    ((*SEGMENT, "--data=BADMASKS"), ("000000.png", "77")),
    (("eval", "DETECTOR", "--data=MASKS"), ("only_masks", "no COCO annotations")),
    (("eval", "DETECTOR", "--data=OTHER"), ("Trainer",)),
    (("eval", "DETECTOR", "--data=DATA", "--crop_pct=0.9"), ("--crop-pct is for classification",)),
    (("eval", "DETECTOR", "--data=DATA", "--real_labels"), ("--real-labels is for classification",)),
    (("eval", "DETECTOR", "--data=DATA", "--size=8"), ("size",)),
    (("eval", "DETECTOR"), ("sample",)),
    (("eval", "SEGMENTER", "--data=BADMASKS", "--num-workers=0"), ("000000.png", "77")),
    (("eval", "SEGMENTER", "--data=BOXES"), ("only_boxes",)),
    (("eval", "CLASSIFIER", "--size=64x96"), ("a classifier needs square images",)),
    (("predict", "CLASSIFIER", "PICTURE", "--k=0", "--runtime=torch"), ("k must be at least 1",)),
    (("predict", "DETECTOR", "PICTURE", "--k=2"), ("--k is for classification, this model is for detection",)),
    (("predict", "DETECTOR", "PICTURE", "--score=much"), ("score",)),
    (("predict", "DETECTOR", "PICTURE", "--score=1.5"), ("score",)),
    (("predict", "DETECTOR", "PICTURE", "--out=OUT.parquet"), ("Parquet files are for classifiers",)),
    (("predict", "DETECTOR", "PICTURE", "--draw=FILE"), ("file.txt",)),
    (("predict", "SEGMENTER", "PICTURE", "--runtime=litert"), ("litert",)),
    (("export", "SEGMENTER", "--out=FILE", "--images=1"), ("file.txt",)),
    (("fuse", "FOUR"), ("images of 4 channels, image files have 1 or 3",)),
    (("fuse", "DETECTOR", "--verify_with=nothing*.jpg"), ("no image was found at nothing",)),
    (("export", "SEGMENTER", "--precision=int8"), ("int8 is not available for",)),
    (
        ("export", "DETECTOR", "--to=torch", "--images=1"),
        ("torch does not support outputs whose number depends",),
    ),
    (
        ("export", "DETECTOR", "--output=logits", "--images=1"),
        ("a model for detection does not have the output 'logits'",),
    ),
    (("export", "DETECTOR", "--batch=4", "--images=1"), ("for one image of a fixed size",)),
    (("export", "DETECTOR", "--precision=fp16", "--images=1"), ("exported in fp32 only",)),
    (
        ("export", "SEGMENTER", "--output=objects", "--images=1"),
        ("a model for segmentation does not have the output 'objects'",),
    ),
    (("convert", "DETECTOR", "out.safetensors"), ("detector.safetensors is a detection model",)),
    (("compare", "DETECTOR", "SEGMENTER", "--no_latency"), ("runs of different tasks cannot be compared",)),
    (("robustness", "DETECTOR"), ("is a detection model; fastvit robustness takes classifiers only",)),
    (("synth", "scenes", "FILE"), ("file.txt",)),
    (("synth", "scenes", "OUT", "--size=8"), ("size",)),
    (("synth", "scenes", "OUT", "--images=0"), ("images",)),
]


def called(line: tuple[str, ...]) -> str:
    return "-".join(part for part in line if part not in (*SHARED, *OPTIONS["detection"], *OPTIONS["segmentation"]))


@pytest.mark.parametrize(("line", "said"), [pytest.param(*mistake, id=called(mistake[0])) for mistake in MISTAKES])
def test_mistakes_are_one_line(files: dict[str, str], line: tuple[str, ...], said: tuple[str, ...]) -> None:
    for name, path in files.items():
        line = tuple(
            part.replace(name, path) if part.split("=")[-1].removesuffix(".parquet") == name else part for part in line
        )
    done = inside(*line)
    assert done.returncode == 2, done.stdout + done.stderr
    mistakes = [text for text in done.stderr.strip().splitlines() if text.startswith("fastvit: error: ")]
    assert len(mistakes) == 1, done.stderr
    assert "Traceback" not in done.stderr
    assert len(mistakes[0]) < 600
    for part in said:
        assert part in mistakes[0], mistakes[0]


def test_a_mistake_in_the_data_is_one_line_in_a_worker_too(files: dict[str, str]) -> None:
    """Whose traceback a person must not see."""
    line = [text.replace("OUT", files["OUT"]) for text in SEGMENT if not text.startswith("--num-workers")]
    done = inside(*line, f"--data={files['BADMASKS']}", "--num-workers=1")
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    (said,) = [text for text in done.stderr.splitlines() if text.startswith("fastvit: error: ")]
    assert ".png has values without a class (1: 77)" in said
