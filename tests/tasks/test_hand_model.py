"""The hand as a function of pose and shape, and the files that hands come in."""

from __future__ import annotations

import dataclasses
import io
import os
import pickle
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse
import torch
from scipy.spatial.transform import Rotation
from torch import Tensor

from fastvit.errors import UserError
from fastvit.tasks.hand_mesh import hand_file
from fastvit.tasks.hand_mesh.hand_file import HandArrays, procedural_hand, read_hand, save_hand
from fastvit.tasks.hand_mesh.hand_model import HandModel
from fastvit.tasks.hand_mesh.rotations import from_axis_angle, from_six, to_six
from fastvit.tasks.hand_mesh.skeleton import BONES, JOINTS, MANO_TIPS, PARENTS, TO_FREIHAND, TURNING


def random_hand(vertices: int = 30, seed: int = 0) -> HandArrays:
    """Arrays of a hand's shapes with everything in them different from zero: no term can be missing unseen."""
    generator = np.random.default_rng(seed)
    weights, regressor = generator.uniform(0, 1, (vertices, TURNING)), generator.uniform(0, 1, (TURNING, vertices))
    return HandArrays(
        name="random",
        side="right",
        template=generator.normal(0, 0.1, (vertices, 3)),
        shape_directions=generator.normal(0, 0.01, (vertices, 3, 10)),
        pose_directions=generator.normal(0, 0.01, (vertices, 3, 135)),
        joint_regressor=regressor / regressor.sum(1, keepdims=True),
        weights=weights / weights.sum(1, keepdims=True),
        faces=generator.integers(0, vertices, (40, 3)),
        pose_mean=generator.normal(0, 0.3, 45),
        pose_components=np.linalg.qr(generator.normal(size=(45, 45)))[0],
        tips=generator.integers(0, vertices, 5),
    )


@pytest.fixture(scope="module", params=["random", "procedural"])
def hand(request: pytest.FixtureRequest) -> HandArrays:
    return random_hand() if request.param == "random" else procedural_hand()


@pytest.fixture(scope="module")
def model(hand: HandArrays) -> HandModel:
    return HandModel.of(hand, torch.float64)


def numbers(batch: int = 3, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Poses (B, 48) and shapes (B, 10)."""
    generator = torch.Generator().manual_seed(seed)
    pose = 0.6 * torch.randn(batch, 48, generator=generator, dtype=torch.float64)
    return pose, torch.randn(batch, 10, generator=generator, dtype=torch.float64)


def skinned(hand: HandArrays, angles: np.ndarray, shape: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """MANO's equations, a joint and a vertex at a time, with 4 x 4 matrices."""
    rest = hand.template + hand.shape_directions @ shape
    places = hand.joint_regressor @ rest
    turns = Rotation.from_rotvec(angles.reshape(TURNING, 3)).as_matrix()
    bends = np.concatenate([(turn - np.eye(3)).ravel() for turn in turns[1:]])
    world: list[np.ndarray] = []
    for joint, parent in enumerate(PARENTS):
        local = np.eye(4)
        local[:3, :3] = turns[joint]
        local[:3, 3] = places[joint] - (places[parent] if joint else 0)
        world.append(world[parent] @ local if joint else local)
    vertices = np.zeros_like(rest)
    for vertex in range(len(rest)):
        start = np.append(rest[vertex] + hand.pose_directions[vertex] @ bends, 1)
        for joint in range(TURNING):
            undo = np.eye(4)
            undo[:3, 3] = -places[joint]
            vertices[vertex] += hand.weights[vertex, joint] * (world[joint] @ undo @ start)[:3]
    joints = np.concatenate([np.stack([matrix[:3, 3] for matrix in world]), vertices[hand.tips]])
    return vertices, joints[list(TO_FREIHAND)]


def test_it_is_manos_equations(hand: HandArrays, model: HandModel) -> None:
    pose, shape = numbers()
    vertices, joints = model(model.rotations(pose), shape)
    for index in range(len(pose)):
        expected = skinned(hand, pose[index].numpy(), shape[index].numpy())
        np.testing.assert_allclose(vertices[index].numpy(), expected[0], rtol=0, atol=1e-13)
        np.testing.assert_allclose(joints[index].numpy(), expected[1], rtol=0, atol=1e-13)


def test_at_rest_it_is_the_template(hand: HandArrays, model: HandModel) -> None:
    zero = torch.zeros(1, 48, dtype=torch.float64)
    vertices, joints = model(model.rotations(zero), torch.zeros(1, 10, dtype=torch.float64))
    np.testing.assert_allclose(vertices[0].numpy(), hand.template, rtol=0, atol=1e-15)
    np.testing.assert_allclose(model.joints(vertices).numpy(), joints.numpy(), rtol=0, atol=1e-15)


def test_a_global_turn_is_rigid_about_the_wrist(model: HandModel) -> None:
    pose, shape = numbers()
    turn = Rotation.from_rotvec([0.4, -1.1, 0.7])
    turned = pose.clone()
    both = turn * Rotation.from_rotvec(pose[:, :3].numpy())
    turned[:, :3] = torch.from_numpy(both.as_rotvec())
    before, after = model(model.rotations(pose), shape), model(model.rotations(turned), shape)
    wrist = before[1][:, :1]
    torch.testing.assert_close(after[1][:, :1], wrist, rtol=0, atol=1e-13)
    matrix = torch.from_numpy(turn.as_matrix())
    for points, moved in zip(before, after, strict=True):
        torch.testing.assert_close((points - wrist) @ matrix.T + wrist, moved, rtol=0, atol=1e-13)


def test_shape_is_linear_in_the_template(model: HandModel) -> None:
    still = torch.eye(3, dtype=torch.float64).expand(3, TURNING, 3, 3)
    first, second = (numbers(seed=seed)[1] for seed in (1, 2))
    rest, a, b, both = (model(still, shape)[0] for shape in (0 * first, first, second, first + 2 * second))
    torch.testing.assert_close(both - rest, (a - rest) + 2 * (b - rest), rtol=0, atol=1e-14)


def test_gradients(model: HandModel) -> None:
    pose, shape = (value.requires_grad_() for value in numbers(1))

    def posed(pose: Tensor, shape: Tensor) -> tuple[Tensor, Tensor]:
        vertices, joints = model(model.rotations(pose), shape)
        return vertices[:, ::37], joints

    assert torch.autograd.gradcheck(posed, (pose, shape), atol=1e-7)
    # At rest as well, where axis and angle have no direction.
    assert torch.autograd.gradcheck(posed, (torch.zeros_like(pose).requires_grad_(), shape), atol=1e-7)


def test_forms_of_a_pose_are_one(model: HandModel) -> None:
    pose, _ = numbers()
    matrices = model.rotations(pose)
    expected = Rotation.from_rotvec(pose.reshape(-1, 3).numpy()).as_matrix()
    np.testing.assert_allclose(matrices.reshape(-1, 3, 3).numpy(), expected, rtol=0, atol=1e-13)
    assert torch.equal(model.rotations(matrices, "matrix"), matrices)
    torch.testing.assert_close(model.rotations(to_six(matrices).flatten(1), "six"), matrices, rtol=0, atol=1e-13)


def test_principal_components_and_the_mean_pose(hand: HandArrays, model: HandModel) -> None:
    coefficients = torch.randn(2, 45, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    turn = torch.zeros(2, 3, dtype=torch.float64)
    few = model.rotations(torch.cat([turn, coefficients[:, :6]], 1), mean=True)
    angles = coefficients[:, :6].numpy() @ hand.pose_components[:6] + hand.pose_mean
    expected = Rotation.from_rotvec(angles.reshape(-1, 3)).as_matrix().reshape(2, 15, 3, 3)
    np.testing.assert_allclose(few[:, 1:].numpy(), expected, rtol=0, atol=1e-13)
    full = model.rotations(torch.cat([turn, torch.from_numpy(angles - hand.pose_mean)], 1), mean=True)
    torch.testing.assert_close(few, full, rtol=0, atol=1e-13)


@pytest.mark.parametrize(("shape", "form"), [((2, 49), "axis_angle"), ((2, 3), "axis_angle"), ((2, 48), "six")])
def test_a_pose_of_another_shape_is_refused(model: HandModel, shape: tuple[int, int], form: Any) -> None:
    with pytest.raises(UserError, match="cannot have the shape"):
        model.rotations(torch.zeros(shape), form)


def test_a_mirrored_hand_in_a_mirrored_pose_is_the_mirror_image(hand: HandArrays, model: HandModel) -> None:
    left = HandModel.of(hand.mirrored(), torch.float64)
    pose, shape = numbers()
    mirrored = pose.unflatten(1, (16, 3)) * torch.tensor([1.0, -1.0, -1.0], dtype=torch.float64)
    flip = torch.tensor([-1.0, 1.0, 1.0], dtype=torch.float64)
    right, other = model(model.rotations(pose), shape), left(left.rotations(mirrored.flatten(1)), shape)
    for ours, theirs in zip(right, other, strict=True):
        torch.testing.assert_close(theirs, ours * flip, rtol=0, atol=1e-13)
    assert hand.mirrored().side == "left"
    with_mean = left.rotations(mirrored[:, :1].flatten(1).new_zeros(1, 48), mean=True)
    expected = model.rotations(pose.new_zeros(1, 48), mean=True) * torch.outer(flip, flip)
    torch.testing.assert_close(with_mean, expected, rtol=0, atol=1e-13)


def test_six_numbers_give_rotations() -> None:
    six = torch.randn(50, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    matrices = from_six(six)
    torch.testing.assert_close(matrices @ matrices.mT, torch.eye(3, dtype=torch.float64).expand(50, 3, 3))
    torch.testing.assert_close(torch.linalg.det(matrices), torch.ones(50, dtype=torch.float64))
    torch.testing.assert_close(from_six(to_six(matrices)), matrices)
    first = six[:, :3] / six[:, :3].norm(dim=1, keepdim=True)
    torch.testing.assert_close(matrices[:, :, 0], first)
    assert torch.autograd.gradcheck(from_six, six[:3].requires_grad_())
    assert torch.autograd.gradcheck(from_axis_angle, torch.zeros(2, 3, dtype=torch.float64).requires_grad_())


def test_the_packages_own_hand_is_a_hand() -> None:
    hand = procedural_hand()
    assert (hand.name, hand.side) == ("procedural", "right")
    assert len(JOINTS) == 21
    assert BONES[:5] == ((0, 1), (1, 2), (2, 3), (3, 4), (0, 5))
    np.testing.assert_allclose(hand.weights.sum(1), 1, atol=1e-6)
    assert (hand.weights >= 0).all()
    np.testing.assert_allclose(hand.joint_regressor.sum(1), 1, atol=1e-5)
    edges = {frozenset(pair) for face in hand.faces.tolist() for pair in zip(face, face[1:] + face[:1], strict=True)}
    assert len(hand.template) - len(edges) + len(hand.faces) == 2, "one closed surface"
    corners = hand.template[hand.faces]
    volume = np.einsum("ij,ij->", corners[:, 0], np.cross(corners[:, 1], corners[:, 2])) / 6
    assert 2e-4 < volume < 6e-4, "a fifth to over half a liter, seen from outside"
    tips = hand.template[hand.tips]
    joints = hand.joint_regressor @ hand.template
    assert 0.16 < np.linalg.norm(tips[2] - joints[0]) < 0.21, "meters from wrist to middle fingertip"
    # Every shape coefficient does something of its own, of millimeters.
    directions = hand.shape_directions.reshape(-1, hand.shape_directions.shape[2])
    assert np.linalg.matrix_rank(directions) == directions.shape[1]
    assert 5e-4 < np.abs(directions).max() < 0.02


def test_a_bent_finger_keeps_its_thickness() -> None:
    """The corrections do what they are for: a fist loses less of the open hand's volume than without them."""
    hand = procedural_hand()
    bent = np.zeros((16, 3))
    for joint in range(1, 13):
        bent[joint, 0] = 1.3
    plain = dataclasses.replace(hand, pose_directions=np.zeros_like(hand.pose_directions))

    def volume(arrays: HandArrays) -> float:
        model = HandModel.of(arrays, torch.float64)
        pose = torch.from_numpy(bent.reshape(1, 48))
        vertices, _ = model(model.rotations(pose), torch.zeros(1, 10, dtype=torch.float64))
        corners = vertices[0].numpy()[hand.faces]
        return float(np.einsum("ij,ij->", corners[:, 0], np.cross(corners[:, 1], corners[:, 2])) / 6)

    corners = hand.template[hand.faces]
    rest = np.einsum("ij,ij->", corners[:, 0], np.cross(corners[:, 1], corners[:, 2])) / 6
    assert abs(volume(hand) - rest) < 0.9 * abs(volume(plain) - rest)


def mano_content(vertices: int = 778) -> dict[str, Any]:
    """What is in MANO's file, by its names, of numbers that are not MANO's."""
    hand = random_hand(vertices)
    return {
        "v_template": hand.template,
        "shapedirs": hand.shape_directions,
        "posedirs": hand.pose_directions,
        "J_regressor": scipy.sparse.csc_matrix(hand.joint_regressor),
        "weights": hand.weights,
        "f": hand.faces.astype(np.uint32),
        "hands_mean": hand.pose_mean,
        "hands_components": hand.pose_components,
        "kintree_table": np.array([[4294967295, *PARENTS[1:]], list(range(16))], np.uint32),
        "bs_style": "lbs",
    }


@pytest.fixture
def chumpy(monkeypatch: pytest.MonkeyPatch) -> types.SimpleNamespace:
    """Classes of chumpy's names and states, for writing pickles as that library wrote them; gone when it is read."""

    class Ch:
        def __init__(self, **state: Any) -> None:
            self.__dict__.update(state)

    class Select(Ch):
        pass

    ch, reordering = types.ModuleType("chumpy.ch"), types.ModuleType("chumpy.reordering")
    for kind, module in ((Ch, ch), (Select, reordering)):
        kind.__module__, kind.__qualname__ = module.__name__, kind.__name__
        setattr(module, kind.__name__, kind)
    names = {"chumpy": types.ModuleType("chumpy"), "chumpy.ch": ch, "chumpy.reordering": reordering}
    for name, module in names.items():
        monkeypatch.setitem(sys.modules, name, module)
    return types.SimpleNamespace(Ch=Ch, Select=Select, forget=lambda: [sys.modules.pop(name) for name in names])


@pytest.mark.parametrize("protocol", range(2, 6))
def test_a_pickle_with_chumpys_arrays_is_read(chumpy: types.SimpleNamespace, protocol: int, tmp_path: Path) -> None:
    content = mano_content()
    wanted = content["shapedirs"].copy()
    order = np.random.default_rng(0).permutation(wanted.size)
    shuffled = np.empty(wanted.size)
    shuffled[order] = wanted.ravel()
    content["shapedirs"] = chumpy.Select(a=chumpy.Ch(x=shuffled), idxs=order, preferred_shape=wanted.shape)
    content["v_template"] = chumpy.Ch(x=content["v_template"])
    path = tmp_path / "MANO_RIGHT.pkl"
    path.write_bytes(pickle.dumps(content, protocol=protocol))
    chumpy.forget()
    hand, expected = read_hand(path), random_hand(778)
    np.testing.assert_array_equal(hand.shape_directions, wanted)
    np.testing.assert_array_equal(hand.template, expected.template)
    np.testing.assert_allclose(hand.joint_regressor, expected.joint_regressor, atol=1e-15)
    assert (hand.name, hand.side, tuple(hand.tips)) == ("MANO_RIGHT", "right", MANO_TIPS)
    path.rename(tmp_path / "MANO_LEFT.pkl")
    assert read_hand(tmp_path / "MANO_LEFT.pkl").side == "left"


def test_a_pickle_of_python_2_is_read(tmp_path: Path) -> None:
    """MANO's own are of 2017: names of Python 2, of an older SciPy, and strings of bytes."""
    raw = pickle.dumps(mano_content(), protocol=2)
    for new, old in (
        (b"cnumpy._core.multiarray\n", b"cnumpy.core.multiarray\n"),
        (b"cscipy.sparse._csc\n", b"cscipy.sparse.csc\n"),
        (b"ccopyreg\n", b"ccopy_reg\n"),
    ):
        raw = raw.replace(new, old)
    path = tmp_path / "MANO_RIGHT.pkl"
    path.write_bytes(raw)
    np.testing.assert_array_equal(read_hand(path).template, random_hand(778).template)


class Calls:
    """A pickle of it calls a function when it is read."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


def hostile() -> dict[str, tuple[bytes, str]]:
    """Pickles that would run something, and what the refusal must name."""
    marker = "the marker that a test looks for"
    system = pickle.dumps({"v_template": Calls(os.system, f"touch '{marker}'")})
    opened = pickle.dumps({"v_template": Calls(open, marker, "w")})
    evaluated = b"cbuiltins\neval\n(S'open(\"" + marker.encode() + b'", "w")\'\ntR.'
    loaded = pickle.dumps({"v_template": Calls(np.load, marker)})
    nested = pickle.dumps({"v_template": np.array([Calls(os.system, f"touch '{marker}'")], object)})
    attribute = b"cnumpy\nndarray.tofile\n(S'x'\ntR."
    whole = b"cnumpy\ndtype\n(cos\nsystem\ntR."
    return {
        "os.system": (system, "system"),
        "open": (opened, "open"),
        "eval": (evaluated, r"builtins\.eval"),
        "numpy.load": (loaded, "load"),
        "inside an array": (nested, "system"),
        "a method": (attribute, "tofile"),
        "as an argument": (whole, "os.system"),
    }


@pytest.mark.parametrize("kind", hostile())
def test_a_hostile_pickle_is_refused_by_name(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    content, name = hostile()[kind]
    path = tmp_path / "MANO_RIGHT.pkl"
    path.write_bytes(content)
    with pytest.raises(UserError, match=name) as raised:
        read_hand(path)
    assert "MANO_RIGHT.pkl" in str(raised.value)
    assert [found.name for found in tmp_path.iterdir()] == ["MANO_RIGHT.pkl"]


def test_pickles_that_are_damaged_or_no_hands(tmp_path: Path) -> None:
    whole = pickle.dumps(mano_content())
    path = tmp_path / "hand.pkl"
    for content, message in (
        (whole[: len(whole) // 2], "cannot be read as a hand model"),
        (b"", "cannot be read as a hand model"),
        (b"no pickle at all", "cannot be read as a hand model"),
        (pickle.dumps([1, 2]), "contains a list"),
        (pickle.dumps({"v_template": np.zeros((3, 3))}), "has no shapedirs, posedirs, J_regressor"),
        (pickle.dumps({**mano_content(), "weights": "heavy"}), "weights is not an array of numbers"),
        (pickle.dumps({**mano_content(), "weights": np.zeros((778, 3))}), r"weights has shape \(778, 3\)"),
        (pickle.dumps({**mano_content(), "weights": np.ones((778, 16))}), "rows of weights must sum to 1"),
        (pickle.dumps({**mano_content(), "f": np.full((4, 3), 778)}), "f contains indices outside of the 778 vertices"),
        (
            pickle.dumps({**mano_content(), "v_template": np.full((778, 3), np.nan)}),
            "v_template has values .* not finite",
        ),
        (pickle.dumps({**mano_content(), "kintree_table": np.zeros((2, 16), int)}), "kintree_table"),
        (pickle.dumps(mano_content(500)), "500 vertices, not MANO's 778: add tips"),
    ):
        path.write_bytes(content)
        with pytest.raises(UserError, match=message) as raised:
            read_hand(path)
        assert "hand.pkl" in str(raised.value)


def test_a_hand_saved_is_the_hand_read(tmp_path: Path) -> None:
    hand = random_hand()
    save_hand(hand, tmp_path / "hand.npz")
    read = read_hand(tmp_path / "hand.npz")
    for field in dataclasses.fields(hand):
        ours, theirs = getattr(hand, field.name), getattr(read, field.name)
        if isinstance(ours, np.ndarray):
            np.testing.assert_allclose(theirs, ours, rtol=1e-6, atol=1e-9)
        else:
            assert theirs == ours
    (tmp_path / "hand.npz").write_bytes((tmp_path / "hand.npz").read_bytes()[:500])
    with pytest.raises(UserError, match=r"hand\.npz cannot be read"):
        read_hand(tmp_path / "hand.npz")
    buffer = io.BytesIO()
    np.savez(buffer, v_template=np.array([{"a": 1}], object))
    (tmp_path / "objects.npz").write_bytes(buffer.getvalue())
    with pytest.raises(UserError, match=r"objects\.npz cannot be read"):
        read_hand(tmp_path / "objects.npz")


def test_without_mano_one_is_told_where_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hand_file, "MANO_FOLDER", tmp_path)
    for name in ("mano", "mano_left", str(tmp_path / "somewhere.pkl")):
        with pytest.raises(UserError, match=r"https://mano\.is\.tue\.mpg\.de.*MANO_RIGHT\.pkl") as raised:
            read_hand(name)
        assert str(tmp_path) in str(raised.value)
    (tmp_path / "MANO_RIGHT.pkl").write_bytes(pickle.dumps(mano_content()))
    assert read_hand("mano").name == "MANO_RIGHT"
    (tmp_path / "hand.txt").touch()
    with pytest.raises(UserError, match=r"hand\.txt is not a hand model: give"):
        read_hand(tmp_path / "hand.txt")
