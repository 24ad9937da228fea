"""The hand mesh regressor: what every model on a backbone must do, its own rules, its export and its loss."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import ndimage
from torch.nn import functional as F

import fastvit
from fastvit.data.transforms import normalize
from fastvit.errors import UserError
from fastvit.export.export import export
from fastvit.export.options import ExportOptions
from fastvit.export.target import TARGETS
from fastvit.runtime.artifact import open_artifact
from fastvit.tasks.hand_mesh.drawing import draw
from fastvit.tasks.hand_mesh.hand_file import HandArrays, procedural_hand
from fastvit.tasks.hand_mesh.heads import centers, sampled
from fastvit.tasks.hand_mesh.mesh_file import write_mesh
from fastvit.tasks.hand_mesh.model import HandRegressor, regressor_config
from fastvit.tasks.hand_mesh.module import HandMeshTask, hand_losses
from fastvit.tasks.hand_mesh.options import HandInfo, LossWeights, RegressorConfig
from fastvit.tasks.hand_mesh.prediction import HandPrediction, predict
from fastvit.tasks.hand_mesh.skeleton import JOINTS, ROOT
from tests.helpers import noise_pictures, tiny
from tests.tasks.contracts import CLASSES, TaskModelContract, images, lively, make_detector, make_segmenter, model
from tests.tasks.test_hand_model import random_hand

__all__ = ["images", "model"]  # fixtures of the contract
KINDS = ("mlp", "tokens", "mlp for both sides")


def make_regressor(
    kind: str, config: fastvit.FastViTConfig | None = None, hand: HandArrays | None = None, **details: Any
) -> HandRegressor:
    """A small regressor of a random hand, in train form."""
    arrays = hand or random_hand()
    network = RegressorConfig(kind.split()[0], 32, "both" if "both" in kind else "right")  # type: ignore[arg-type]
    config = config or tiny(num_classes=len(CLASSES), attention=True).config
    details = {"classes": None, **details}
    model = HandRegressor(config, options=regressor_config(arrays, network), **details)
    if not model.hand.template.is_meta:
        model.take_hand(arrays)
    return model


@pytest.fixture(scope="module", params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def make() -> Callable[..., HandRegressor]:
    return make_regressor


class TestHandRegressor(TaskModelContract):
    tolerance = 1e-10

    def wrong_options(self, options: dict[str, Any]) -> list[tuple[dict[str, Any], str]]:
        network, hand = options["network"], options["hand"]
        return [
            (
                {"options": {"network": network | {"head_channels": 33}, "hand": hand}},
                "must be a multiple of 32, got 33",
            ),
            ({"options": {"network": network | {"head_channels": 64}, "hand": hand}}, "does not fit the model"),
            ({"options": {"network": network, "hand": hand | {"vertices": 31}}}, "does not fit the model"),
            ({"options": {"network": network, "hand": {"name": "a"}}}, "network are not valid: .*vertices"),
        ]

    def test_weights_of_the_same_task(self, model: HandRegressor, make: Any, kind: str, tmp_path: Path) -> None:
        path = fastvit.save(model, tmp_path / "model.safetensors")
        same = make(kind, hand=random_hand(seed=9)).double()
        assert fastvit.load_weights(same, path).head
        assert all(torch.equal(p, model.state_dict()[name]) for name, p in same.state_dict().items())
        with pytest.raises(UserError, match=r"does not fit the model: .*template"):
            fastvit.load_weights(make(kind, hand=random_hand(40)), path)


def test_what_is_given(kind: str) -> None:
    model = lively(make_regressor(kind)).eval()
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        found = model(images)
        outputs = dict(zip(model.output_names, model.outputs(images), strict=True))
    assert set(outputs) == {"vertices", "joints", "camera", *(["side"] if "both" in kind else [])}
    assert all(torch.equal(found[name], output) for name, output in outputs.items())
    shapes = {name: tuple(value.shape[1:]) for name, value in found.items()}
    assert shapes["vertices"] == (30, 3)
    assert shapes["joints"] == (21, 3)
    assert shapes["camera"] == (3,)
    assert (found["camera"][:, 0] > 0).all()
    assert not found["joints"][:, ROOT].any(), "the root joint is where space begins"
    if "mlp" in kind:
        turns = found["rotations"]
        torch.testing.assert_close(turns @ turns.mT, torch.eye(3).expand(2, 16, 3, 3), rtol=0, atol=1e-5)
        vertices, joints = model.hand(turns, found["shape"])
        mirror = torch.where(found["side"] > 0, -1.0, 1.0)[:, :, None] if "side" in found else torch.ones(2, 1, 1)
        flip = torch.cat([mirror, torch.ones_like(mirror), torch.ones_like(mirror)], 2)
        torch.testing.assert_close((vertices - joints[:, ROOT : ROOT + 1]) * flip, found["vertices"])


def test_a_left_hand_is_a_right_one_in_the_mirror() -> None:
    model = make_regressor("mlp for both sides").eval()
    images = torch.randn(3, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        left, right = (model(images, torch.full((3,), value)) for value in (True, False))
        model.side.bias.fill_(50.0)
        by_itself = model(images)
    flip = torch.tensor([-1.0, 1.0, 1.0])
    for name in ("vertices", "joints"):
        assert torch.equal(left[name], right[name] * flip)
        assert torch.equal(by_itself[name], left[name])
    assert torch.equal(left["camera"], right["camera"])
    with pytest.raises(UserError, match="is a left hand; sides='both' predicts both"):
        fastvit.create_hand_regressor("t8", hand=procedural_hand().mirrored())


def test_features_are_sampled_as_torch_samples_them() -> None:
    generator = torch.Generator().manual_seed(0)
    maps = torch.randn(2, 5, 6, 9, generator=generator, dtype=torch.float64)
    places = 2.6 * torch.rand(2, 40, 2, generator=generator, dtype=torch.float64) - 1.3
    expected = F.grid_sample(maps, places[:, :, None], align_corners=False)[..., 0].transpose(1, 2)
    torch.testing.assert_close(sampled(maps, places), expected)


def test_centres_of_heat_maps_are_their_centres_of_mass() -> None:
    shares = np.random.default_rng(0).dirichlet(np.ones(6 * 9), (2, 4)).reshape(2, 4, 6, 9)
    found = centers(torch.from_numpy(shares).log() + 3)
    for place in np.ndindex(2, 4):
        row, column = ndimage.center_of_mass(shares[place])
        expected = ((column + 0.5) / 9 * 2 - 1, (row + 0.5) / 6 * 2 - 1)
        np.testing.assert_allclose(found[place].numpy(), expected, atol=1e-12)


def test_create_by_name() -> None:
    model = fastvit.create_hand_regressor("t8", head="tokens", head_channels=64, sides="both")
    assert (model.variant, model.classes, model.options.network.head_channels) == ("fastvit_t8", ("hand",), 64)
    hand = procedural_hand()
    np.testing.assert_array_equal(model.faces.numpy(), hand.faces)
    np.testing.assert_allclose(model.hand.template.numpy(), hand.template, atol=1e-7)
    assert model.preprocessing.size == (224, 224)
    with pytest.raises(UserError, match="multiple of 32"):
        fastvit.create_hand_regressor("t8", head_channels=40)
    broken = HandInfo("hand", 3, 10, "nothing")
    with pytest.raises(UserError, match="faces of the hand hand are corrupt"):
        broken.faces  # noqa: B018


def test_losses_are_what_they_say() -> None:
    generator = np.random.default_rng(0)

    def numbers(*shape: int) -> torch.Tensor:
        return torch.from_numpy(generator.normal(size=shape)).float()

    outputs = {
        "vertices": numbers(4, 30, 3),
        "joints": numbers(4, 21, 3),
        "camera": numbers(4, 3),
        "rotations": numbers(4, 16, 3, 3),
        "shape": numbers(4, 10),
        "side": numbers(4, 1),
    }
    targets = {name: numbers(*value.shape) for name, value in outputs.items()} | {
        "projected": numbers(4, 21, 2),
        "left": torch.tensor([True, False, True, False]),
        "known": torch.tensor([True, True, False, False]),
    }
    parts = {name: value.item() for name, value in hand_losses(outputs, targets).items()}
    arrays = {name: value.numpy().astype(np.float64) for name, value in outputs.items()}
    true = {name: value.numpy().astype(np.float64) for name, value in targets.items()}
    seen = arrays["camera"][:, None, :1] * arrays["joints"][..., :2] + arrays["camera"][:, None, 1:]
    chance = 1 / (1 + np.exp(-arrays["side"][:, 0]))
    expected = {
        "joints": np.abs(arrays["joints"] - true["joints"]).mean(),
        "vertices": np.abs(arrays["vertices"] - true["vertices"]).mean(),
        "projected": np.abs(seen - true["projected"]).mean(),
        "rotations": np.abs(arrays["rotations"] - true["rotations"])[:2].mean(),
        "shape": np.abs(arrays["shape"] - true["shape"])[:2].mean(),
        "side": -np.log(np.where(true["left"], chance, 1 - chance)).mean(),
    }
    assert parts.keys() == expected.keys()
    for name, value in expected.items():
        assert parts[name] == pytest.approx(value, rel=1e-5), name
    weights = LossWeights(1, 2, 3, 4, 5, 6)
    task = HandMeshTask(make_regressor("mlp"), weights)
    total = sum(weight * parts[name] for name, weight in vars(weights).items())
    assert task.loss(outputs, targets).item() == pytest.approx(total, rel=1e-5)
    with pytest.raises(UserError, match=r"hand_mesh\.losses\.joints"):
        LossWeights(joints=-1)


def test_predictions_are_in_the_images_own_pixels() -> None:
    joints = np.zeros((1, 21, 3))
    joints[0, 4] = [0.05, -0.1, 0.02]
    outputs = {"joints": joints, "vertices": np.concatenate([joints, joints], 1), "camera": np.array([[10.0, 0, 0.2]])}
    faces = np.array([[0, 1, 2]])
    found = predict(outputs, "a.jpg", (224, 224), (112, 224), (300, 600), faces)
    # x: (10 * 0.05 + 1) / 2 * 224 = 168 of 224 px; y: (10 * -0.1 + 0.2 + 1) / 2 * 224 = 22.4 of 112.
    np.testing.assert_allclose(found.joints_2d[4], [168 / 224 * 600, 22.4 / 112 * 300])
    assert found.side == "right"
    record = found.record()
    assert record["image"] == "a.jpg"
    (hand,) = record["predictions"]
    assert list(hand["joints"]) == list(JOINTS)
    assert hand["joints"]["thumb tip"] == [0.05, -0.1, 0.02]
    undecided = predict({**outputs, "side": np.array([[0.0]])}, "a.jpg", (224, 224), (224, 224), (224, 224), faces)
    assert undecided.side == "right", "as the network, which mirrors left hands alone"
    left = predict({**outputs, "side": np.array([[3.0]])}, "a.jpg", (224, 224), (224, 224), (224, 224), faces)
    assert left.side == "left"
    np.testing.assert_array_equal(left.faces, faces[:, ::-1])


def test_meshes_as_files(tmp_path: Path) -> None:
    vertices, faces = np.array([[0.0, 0.1, 0.2], [1, 0, 0], [0, 1, 0]]), np.array([[0, 1, 2]])
    write_mesh(tmp_path / "hand.obj", vertices, faces)
    lines = (tmp_path / "hand.obj").read_text().splitlines()
    assert lines[0] == "v 0.000000 -0.100000 -0.200000"
    assert lines[-1] == "f 1 2 3"
    write_mesh(tmp_path / "hand.ply", vertices, faces)
    text = (tmp_path / "hand.ply").read_text()
    assert text.startswith("ply\nformat ascii 1.0\nelement vertex 3\n")
    assert text.endswith("3 0 1 2\n")
    with pytest.raises(UserError, match=r"hand\.stl: meshes are written as"):
        write_mesh(tmp_path / "hand.stl", vertices, faces)


def test_drawings_cover_the_hand_and_nothing_else() -> None:
    hand = procedural_hand()
    places = np.stack([32 + 180 * hand.template[:, 0], 50 - 180 * hand.template[:, 1]], 1)
    joints = np.repeat(places[hand.tips], 5, 0)[:21]
    output = HandPrediction("a", "right", np.zeros((21, 3)), hand.template, joints, places, hand.faces)
    drawn = draw(Image.new("RGB", (64, 64), "white"), output)
    assert drawn.size == (384, 384), "small images are enlarged"
    pixels = np.asarray(drawn).astype(int)
    middle = 6 * places.mean(0)
    assert pixels[int(middle[1]), int(middle[0])].sum() < 3 * 240
    assert (pixels[:5, :5] == 255).all()


EXPORTS = [
    ("onnx", "dynamic"),
    *(
        pytest.param(*case, marks=pytest.mark.slow)
        for case in (("onnx", 1), ("torch", "dynamic"), ("openvino", 1), ("executorch", 1))
    ),
]


@pytest.mark.parametrize(("target", "batch"), EXPORTS)
def test_exports_are_equal(kind: str, target: str, batch: Any, tmp_path: Path) -> None:
    """One graph from image to mesh, also for several images a call."""
    runner = TARGETS[target].runner
    if runner and (reason := runner.available()):
        pytest.skip(reason)
    model = lively(make_regressor(kind, hand=procedural_hand(), preprocessing=_preprocessing())).eval()
    pictures = noise_pictures(4)
    path = tmp_path / f"hand{TARGETS[target].suffix}"
    made = export(model, TARGETS[target], path, pictures, ExportOptions(batch=batch, input="pixels"))
    assert made.proof is not None
    # Of meshes of about a meter; the token head samples at places, and so multiplies what they differ by.
    tolerance = 5e-5 if kind == "tokens" else 1e-5
    assert made.proof.differences.relative < tolerance
    artifact = open_artifact(path)
    assert artifact.signature.outputs == model.output_names
    pixels = np.random.default_rng(0).integers(0, 256, (3 if batch == "dynamic" else 1, 3, 64, 64), np.uint8)
    outputs = artifact(pixels)
    with torch.no_grad():
        expected = model(normalize(torch.from_numpy(pixels), model.preprocessing))
    for name, output in outputs.items():
        np.testing.assert_allclose(output, expected[name].numpy(), rtol=1e-4, atol=tolerance)
    # What runs the artifact alone knows how to draw it.
    ours, theirs = (fastvit.Predictor(source, runtime="auto")(pictures[:1])[0] for source in (model, path))
    np.testing.assert_allclose(theirs.vertices_2d, ours.vertices_2d, atol=1e-2)
    np.testing.assert_array_equal(theirs.faces, ours.faces)


@pytest.mark.slow
def test_core_ml_is_written(kind: str, tmp_path: Path) -> None:
    pytest.importorskip("coremltools", reason='needs pip install "fastvit[coreml]"')
    model = make_regressor(kind, hand=procedural_hand(), preprocessing=_preprocessing()).eval()
    path = tmp_path / f"hand{TARGETS['coreml'].suffix}"
    export(model, TARGETS["coreml"], path, noise_pictures(2), ExportOptions())
    assert path.is_dir()


def test_exports_that_make_no_sense(tmp_path: Path) -> None:
    model = make_regressor("mlp", preprocessing=_preprocessing()).eval()
    onnx = TARGETS["onnx"]
    for options, message in (
        (ExportOptions(size="dynamic"), "exported for one size"),
        (
            ExportOptions(output="logits"),
            "a model for hand_mesh does not have the output 'logits'; choose from mesh, features",
        ),
        (ExportOptions(precision="int8"), "int8 is not available for"),
    ):
        with pytest.raises(UserError, match=message):
            export(model, onnx, tmp_path / "hand.onnx", noise_pictures(1), options)
    for other in (make_detector("retinanet"), make_segmenter("fpn"), tiny()):
        with pytest.raises(UserError, match="does not have the output .mesh."):
            export(other.eval(), onnx, tmp_path / "other.onnx", noise_pictures(1), ExportOptions(output="mesh"))


def _preprocessing() -> fastvit.Preprocessing:
    return dataclasses.replace(fastvit.Preprocessing(), size=(64, 64), resize="letterbox")
