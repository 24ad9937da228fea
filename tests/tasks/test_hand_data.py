"""Data of hands: FreiHAND's layout, synthetic images, and how they are varied together with what is known of them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw
from scipy.spatial.transform import Rotation

from fastvit.data.load import open_images
from fastvit.data.sampling import PADDING, SampleIndex
from fastvit.errors import UnreadableImageError, UserError
from fastvit.model.preprocessing import Preprocessing
from fastvit.tasks.hand_mesh.camera import (
    FLIP,
    moved,
    project,
    root_in_space,
    to_pixels,
    to_unit_square,
    weak_projection,
)
from fastvit.tasks.hand_mesh.data import HandSamples, open_for_run
from fastvit.tasks.hand_mesh.freihand import HandGroundTruth, HandImages, open_freihand
from fastvit.tasks.hand_mesh.hand_file import procedural_hand
from fastvit.tasks.hand_mesh.hand_model import HandModel
from fastvit.tasks.hand_mesh.json_rows import JsonRows
from fastvit.tasks.hand_mesh.options import HandMeshOptions, RegressorConfig
from fastvit.tasks.hand_mesh.poses import HandAxes, random_pose
from fastvit.tasks.hand_mesh.rasterizer import rasterize, vertex_normals
from fastvit.tasks.hand_mesh.skeleton import ROOT, TURNING
from fastvit.tasks.hand_mesh.synthetic import HandMaker
from fastvit.tasks.hand_mesh.synthetic_folder import write_hands
from fastvit.tasks.hand_mesh.transforms import TrainTransform, fitted, mapped, transformed_targets, varied

SIDE = 64


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four training pictures and one for evaluation."""
    path = tmp_path_factory.mktemp("hands") / "data"
    assert write_hands(path, 4, SIDE, num_workers=0) == {"training": 4, "evaluation": 1}
    return path


@pytest.fixture
def copied(folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(folder, tmp_path / "copy"))


# Long JSON lists.


def test_rows_are_those_of_json(tmp_path: Path) -> None:
    rows = [[1.5, -2e-3], [[1, 2], [3, 4]], 7, [], [[[5]]]]
    for text in (json.dumps(rows), json.dumps(rows, indent=2), json.dumps(rows, separators=(",", ":")) + "\n"):
        (tmp_path / "rows.json").write_text(text)
        found = JsonRows(tmp_path / "rows.json")
        assert len(found) == len(rows)
        assert list(found) == rows
        assert found[3] == []
    np.testing.assert_array_equal(found.array(1, (2, 2)), [[1, 2], [3, 4]])
    np.testing.assert_array_equal(found.array(0, (1, 2)), [[1.5, -2e-3]])
    (tmp_path / "rows.json").write_text("[ ]")
    assert len(JsonRows(tmp_path / "rows.json")) == 0


def test_rows_over_the_borders_of_what_is_read_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = np.random.default_rng(0).normal(size=(50, 3, 3)).round(5).tolist()
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    for chunk in (1, 7, 64, 1000):
        monkeypatch.setattr("fastvit.tasks.hand_mesh.json_rows._CHUNK", chunk)
        assert list(JsonRows(tmp_path / "rows.json")) == rows


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not a JSON list"),
        ('{"a": [1]}', "not a JSON list"),
        ("[[1, 2], [3", "truncated"),
        ("[1, 2] [3]", "there is text after its end"),
        ("hello", "not a JSON list"),
    ],
)
def test_files_that_are_no_lists(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "rows.json").write_text(text)
    with pytest.raises(UserError, match=rf"rows\.json.*{message}"):
        JsonRows(tmp_path / "rows.json")


def test_damaged_entries_are_named(tmp_path: Path) -> None:
    (tmp_path / "rows.json").write_text('[[1, 2], [1, "x"], [NaN, 1], [1, 2, 3], [1 2]]')
    rows = JsonRows(tmp_path / "rows.json")
    for index, message in ((1, "not an array of numbers"), (2, "not finite"), (3, r"shape \(3,\), expected \(2,\)")):
        with pytest.raises(UserError, match=rf"entry {index} of .*rows\.json.*{message}"):
            rows.array(index, (2,))
    with pytest.raises(UserError, match=r"entry 4 of .*rows\.json cannot be read"):
        rows[4]
    with pytest.raises(UserError, match="cannot be read"):
        JsonRows(tmp_path / "none.json")


# The layout.


def test_made_hands_are_read_again(folder: Path) -> None:
    images = open_freihand(folder, "train")
    assert (len(images), images.part, images.classes) == (4, "training", ("hand",))
    hand = procedural_hand()
    assert images.hand is not None
    np.testing.assert_allclose(images.hand.template, hand.template, atol=1e-7)
    model = HandModel.of(hand, torch.float64)
    for index in range(len(images)):
        ground_truth = images.ground_truth(index)
        assert images.image(index).size == (SIDE, SIDE)
        assert ground_truth.side == "right"
        assert (ground_truth.vertices[:, 2] > 0).all(), "in front of the camera"
        # The parameters are those of the mesh, and the mesh is where the picture shows a hand.
        vertices, joints = model(
            model.rotations(torch.from_numpy(ground_truth.pose)[None]), torch.from_numpy(ground_truth.shape)[None]
        )
        shift = ground_truth.joints[ROOT] - joints[0, ROOT].numpy()
        np.testing.assert_allclose(vertices[0].numpy() + shift, ground_truth.vertices, atol=1e-5)
        np.testing.assert_allclose(joints[0].numpy() + shift, ground_truth.joints, atol=1e-5)
        mask = np.asarray(Image.open(folder / "training" / "mask" / f"{index:08d}.jpg")) > 127
        places = project(ground_truth.vertices, ground_truth.intrinsics)
        inside = mask[tuple(np.clip(np.floor(places[:, ::-1]).astype(int), 0, SIDE - 1).T)]
        assert inside.mean() > 0.85
        rows, columns = np.nonzero(mask)
        assert np.abs([columns.min(), rows.min()] - places.min(0)).max() < 2
        assert np.abs([columns.max() + 1, rows.max() + 1] - places.max(0)).max() < 2
    scales = json.loads((folder / "training_scale.json").read_text())
    expected = [
        np.linalg.norm(images.ground_truth(i).joints[ROOT + 1] - images.ground_truth(i).joints[ROOT]) for i in range(4)
    ]
    np.testing.assert_allclose(scales, expected, atol=1e-5)
    mano = np.array(json.loads((folder / "training_mano.json").read_text()))
    assert mano.shape == (4, 1, 61)
    ground_truth = images.ground_truth(0)
    np.testing.assert_allclose(
        mano[0, 0, 58:60], project(ground_truth.joints[ROOT : ROOT + 1], ground_truth.intrinsics)[0], atol=1e-3
    )
    assert mano[0, 0, 60] == pytest.approx(ground_truth.intrinsics[0, 0] / ground_truth.joints[ROOT, 2], abs=0.1)


def test_the_same_seed_makes_the_same_pictures(folder: Path, tmp_path: Path) -> None:
    write_hands(tmp_path / "again", 4, SIDE, num_workers=2)
    write_hands(tmp_path / "other", 1, SIDE, seed=1, num_workers=0)
    for path in folder.rglob("*"):
        if path.suffix in (".jpg", ".json", ".npz"):
            same = (tmp_path / "again" / path.relative_to(folder)).read_bytes() == path.read_bytes()
            # The archive holds the time at which it was made.
            assert same or path.suffix == ".npz", path
    first = "training/rgb/00000000.jpg"
    assert (tmp_path / "other" / first).read_bytes() != (folder / first).read_bytes()
    assert (folder / "training/rgb/00000001.jpg").read_bytes() != (folder / first).read_bytes()


def test_a_folder_is_made_whole_or_not_at_all(copied: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="already contains synthetic hands: replace them with --overwrite"):
        write_hands(copied, 1, SIDE, num_workers=0)
    write_hands(copied, 1, SIDE, num_workers=0, overwrite=True)
    assert len(open_freihand(copied, "train")) == 1
    (copied / "mine.txt").touch()
    with pytest.raises(UserError, match=r"contains other files \(mine\.txt\)"):
        write_hands(copied, 1, SIDE, num_workers=0, overwrite=True)
    for options, message in (
        ({"images": 0}, "images must be at least 1"),
        ({"size": 8}, "size must be from 64 to 1024"),
        ({"seed": -1}, "seed must be at least 0"),
        ({"hand": "nothing.npz"}, r"the hand model nothing\.npz does not exist"),
    ):
        with pytest.raises(UserError, match=message):
            write_hands(tmp_path / "new", **options)
        assert not (tmp_path / "new").exists()


def test_several_backgrounds_share_an_annotation(copied: Path) -> None:
    pictures = copied / "training" / "rgb"
    for index in range(4):
        shutil.copy(pictures / f"{index:08d}.jpg", pictures / f"{index + 4:08d}.jpg")
    images = open_freihand(copied, "train")
    assert len(images) == 8
    np.testing.assert_array_equal(images.ground_truth(5).joints, images.ground_truth(1).joints)


def test_what_is_missing_is_named(copied: Path, tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"the folder .*nowhere does not exist; write synthetic hands with: fastvit synth hands"
    ):
        open_freihand(tmp_path / "nowhere", "train")
    for name in ("training_K.json", "training_verts.json"):
        (copied / name).unlink()
    shutil.rmtree(copied / "training" / "rgb")
    with pytest.raises(UserError) as raised:
        open_freihand(copied, "train")
    for part in ("training_K.json", "training_verts.json", "training/rgb/"):
        assert part in str(raised.value)
    assert "training_xyz.json" not in str(raised.value)
    (copied / "evaluation_mano.json").unlink()
    assert open_freihand(copied, "test").ground_truth(0).pose is None


def test_files_that_do_not_belong_together(copied: Path) -> None:
    rows = json.loads((copied / "training_xyz.json").read_text())
    (copied / "training_xyz.json").write_text(json.dumps(rows[:3]))
    with pytest.raises(UserError, match=r"training_K\.json has 4 entries, but training_xyz\.json has 3"):
        open_freihand(copied, "train")
    (copied / "training_xyz.json").write_text(json.dumps(rows))
    (copied / "training" / "rgb" / "00000002.jpg").unlink()
    with pytest.raises(UserError, match=r"has 3 images for 4 annotations.*missing: 00000002\.jpg"):
        open_freihand(copied, "train")
    Image.new("RGB", (SIDE, SIDE)).save(copied / "training" / "rgb" / "photo.jpg")
    with pytest.raises(UserError, match=r"missing: 00000002\.jpg"):
        open_freihand(copied, "train")


def test_another_hand_than_the_annotations_is_refused(copied: Path) -> None:
    vertices = json.loads((copied / "training_verts.json").read_text())
    (copied / "training_verts.json").write_text(json.dumps([rows[:778] for rows in vertices]))
    with pytest.raises(UserError, match=r"have 778 vertices, but procedural has 1102"):
        open_freihand(copied, "train")
    with pytest.raises(UserError, match=r"have 778 vertices, but the hand of the model has 500"):
        open_freihand(copied, "train", vertices=500)
    assert open_freihand(copied, "train", vertices=778).ground_truth(0).vertices.shape == (778, 3)
    (copied / "hand.npz").unlink()
    with pytest.raises(UserError, match=r"MANO_RIGHT\.pkl"):
        open_freihand(copied, "test")


def test_evaluation_without_truth(copied: Path) -> None:
    """As FreiHAND's was before its annotations were released: there are cameras and pictures."""
    for kind in ("xyz", "verts", "mano"):
        (copied / f"evaluation_{kind}.json").unlink()
    images = open_freihand(copied, "test")
    assert not images.has_ground_truth
    with pytest.raises(UserError, match=r"evaluation_xyz\.json"):
        images.ground_truth(0)
    sample = HandSamples(images, Preprocessing((SIDE, SIDE), resize="letterbox"))[0]
    assert sample[1]["index"] == 0
    with pytest.raises(UserError, match=r"evaluation_xyz\.json, which validation needs, does not exist"):
        open_for_run(str(copied))


# Cameras and changes.


def hand_ground_truth(generator: np.random.Generator, side: str = "right") -> HandGroundTruth:
    """A hand in front of a camera whose middle is not that of its image."""
    hand = procedural_hand() if side == "right" else procedural_hand().mirrored()
    axes = HandAxes.of(hand)
    pose = random_pose(axes, generator)
    pose[0] = Rotation.random(random_state=int(generator.integers(1 << 30))).as_rotvec()
    shape = generator.normal(0, 0.5, 10)
    model = HandModel.of(hand, torch.float64)
    turns = model.rotations(torch.from_numpy(pose.reshape(1, 48)))
    vertices, joints = (part[0].numpy() for part in model(turns, torch.from_numpy(shape)[None]))
    shift = np.array([0.02, -0.03, 0.7]) - joints[ROOT]
    intrinsics = np.array([[480.0, 0, 118], [0, 480, 103], [0, 0, 1]])
    return HandGroundTruth(intrinsics, joints + shift, vertices + shift, pose.ravel(), shape, side)  # type: ignore[arg-type]


@pytest.mark.parametrize("flip", [0.0, 1.0])
def test_image_and_space_change_together(flip: float) -> None:
    """A changed hand seen by the changed camera is where the changed image shows it."""
    generator = np.random.default_rng(0)
    options = HandMeshOptions(RegressorConfig(sides="both"), hflip=flip, rotation=180, scale=(0.5, 2), translation=0.3)
    ground_truth = hand_ground_truth(generator)
    torch.manual_seed(0)
    for _ in range(10):
        transform = varied((200, 230), 96, options)
        camera = moved(ground_truth.intrinsics, transform.image, transform.space)
        seen = project(ground_truth.vertices @ transform.space.T, camera)
        before = project(ground_truth.vertices, ground_truth.intrinsics)
        expected = before @ transform.image[:2, :2].T + transform.image[:2, 2]
        np.testing.assert_allclose(seen, expected, rtol=0, atol=1e-9)
        np.testing.assert_allclose(camera[2], [0, 0, 1], atol=1e-12)
        np.testing.assert_allclose(camera[1, 0], 0, atol=1e-9)
        assert np.linalg.det(transform.space) == pytest.approx(-1 if flip else 1)
        assert camera[0, 0] * camera[1, 1] == pytest.approx((480**2) * abs(np.linalg.det(transform.image)))


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("flip", [0.0, 1.0])
def test_parameters_change_with_the_mesh(side: str, flip: float) -> None:
    """The right hand model, posed as the changed parameters say and mirrored for a left hand, is the changed mesh."""
    generator = np.random.default_rng(1)
    options = HandMeshOptions(RegressorConfig(sides="both"), hflip=flip, rotation=180)
    hand = procedural_hand()
    model = HandModel.of(hand, torch.float64)
    ground_truth = hand_ground_truth(generator, side)
    if side == "left":  # annotated by the right hand's parameters, as everything here is
        pose = ground_truth.pose.reshape(16, 3) * [1, -1, -1]
        ground_truth = HandGroundTruth(
            ground_truth.intrinsics,
            ground_truth.joints,
            ground_truth.vertices,
            pose.ravel(),
            ground_truth.shape,
            "left",
        )
    torch.manual_seed(0)
    for _ in range(5):
        target = transformed_targets(ground_truth, varied((224, 224), 96, options), hand, (96, 96))
        vertices, joints = model(target["rotations"].double()[None], target["shape"].double()[None])
        assert bool(target["left"]) == ((side == "left") != bool(flip))
        mirror = np.diag(FLIP) if target["left"] else np.ones(3)
        ours = (vertices - joints[:, ROOT : ROOT + 1])[0].numpy() * mirror
        np.testing.assert_allclose(ours, target["vertices"].numpy(), rtol=0, atol=1e-6)
        assert target["known"]


def test_pixels_move_as_the_map_says() -> None:
    image = Image.new("RGB", (200, 160))
    ImageDraw.Draw(image).ellipse((120 - 6, 50 - 6, 120 + 6, 50 + 6), fill="white")
    torch.manual_seed(0)
    options = HandMeshOptions(RegressorConfig(sides="both"), hflip=0.5, rotation=180, scale=(0.6, 1.5), translation=0.1)
    for _ in range(12):
        transform = varied((160, 200), 128, options)
        pixels = np.asarray(mapped(image, transform.image, 128, (0, 0, 0)), float)[..., 0]
        expected = transform.image[:2, :2] @ [120.5, 50.5] + transform.image[:2, 2]
        if not (expected > 8).all() or not (expected < 120).all():
            continue
        y, x = np.mgrid[:128, :128] + 0.5
        center = np.array([(pixels * x).sum(), (pixels * y).sum()]) / pixels.sum()
        assert np.abs(center - expected).max() < 0.6


def test_what_is_missing_of_a_turned_image_is_the_mean() -> None:
    transform = TrainTransform(HandMeshOptions(rotation=45, color=0.0), Preprocessing((SIDE, SIDE), resize="letterbox"))
    torch.manual_seed(3)
    pixels, _ = transform(Image.new("RGB", (SIDE, SIDE), "white"))
    assert pixels.shape == (3, SIDE, SIDE)
    assert [channel.min().item() for channel in pixels] == [124, 116, 104]  # ImageNet's mean, of 255
    assert pixels[:, SIDE // 2, SIDE // 2].tolist() == [255] * 3
    gray = Preprocessing((SIDE, SIDE), mean=(0.5,), std=(0.2,), resize="letterbox")
    assert TrainTransform(HandMeshOptions(), gray)(Image.new("RGB", (50, 70)))[0].shape == (1, SIDE, SIDE)


def test_weak_perspective_and_back_to_space() -> None:
    generator = np.random.default_rng(0)
    ground_truth = hand_ground_truth(generator)
    size = (210, 230)
    root = ground_truth.joints[ROOT]
    scale = ground_truth.intrinsics[0, 0] / root[2] / ((size[0] + size[1]) / 4)
    camera = np.append(scale, to_unit_square(project(root[None], ground_truth.intrinsics)[0], size))
    np.testing.assert_allclose(root_in_space(camera, size, ground_truth.intrinsics), root, atol=1e-12)
    flat = ground_truth.joints - root
    flat[:, 2] = 0
    square = (220, 220)
    camera[0] = ground_truth.intrinsics[0, 0] / root[2] / 110
    camera[1:] = to_unit_square(project(root[None], ground_truth.intrinsics)[0], square)
    expected = project(flat + root, ground_truth.intrinsics)
    np.testing.assert_allclose(to_pixels(weak_projection(flat, camera), square), expected, atol=1e-9)
    np.testing.assert_allclose(to_unit_square(to_pixels(flat[:, :2], size), size), flat[:, :2], atol=1e-12)


def test_evaluation_sees_all_of_an_image() -> None:
    transform = fitted((100, 200), Preprocessing((64, 64), resize="letterbox"))
    np.testing.assert_allclose(transform.image @ [200, 100, 1], [64, 32, 1])
    np.testing.assert_array_equal(transform.space, np.eye(3))


# Samples.


def test_samples(folder: Path) -> None:
    images = open_freihand(folder, "train")
    samples = HandSamples(images, Preprocessing((48, 48), resize="letterbox"), HandMeshOptions(size=48))
    pixels, target = samples[2]
    ground_truth = images.ground_truth(2)
    assert pixels.shape == (3, 48, 48)
    np.testing.assert_allclose(target["joints"].numpy(), ground_truth.joints - ground_truth.joints[ROOT], atol=1e-6)
    places = to_unit_square(project(ground_truth.joints, ground_truth.intrinsics), (SIDE, SIDE))
    np.testing.assert_allclose(target["projected"].numpy(), places, atol=1e-5)
    assert target["index"] == 2
    first, again, other = (samples[SampleIndex(2, seed)] for seed in (5, 5, 6))
    assert torch.equal(first[0], again[0])
    assert all(torch.equal(first[1][name], again[1][name]) for name in first[1])
    assert not torch.equal(first[1]["vertices"], other[1]["vertices"])
    assert samples[PADDING][1]["index"] == PADDING
    with pytest.raises(UserError, match="set resize to"):
        HandSamples(images, Preprocessing((48, 48)))


def test_an_unreadable_picture_is_named(copied: Path) -> None:
    picture = copied / "training" / "rgb" / "00000001.jpg"
    picture.write_bytes(picture.read_bytes()[:300])
    images = open_freihand(copied, "train")
    preprocessing = Preprocessing((48, 48), resize="letterbox")
    with pytest.raises(UnreadableImageError, match=r"00000001\.jpg"):
        HandSamples(images, preprocessing)[1]
    with pytest.warns(UserWarning, match=r"00000001\.jpg.*is skipped"):
        assert HandSamples(images, preprocessing, skip_unreadable=True)[1][1]["index"] == PADDING


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 16}, "hand_mesh.size"),
        ({"rotation": 200}, "hand_mesh.rotation"),
        ({"scale": (2, 1)}, "hand_mesh.scale"),
        ({"color": 2}, "hand_mesh.color"),
        ({"hflip": 0.5}, "hand_mesh.network.sides to both"),
    ],
)
def test_options_that_make_no_sense(options: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        HandMeshOptions(**options)  # type: ignore[arg-type]


# Pictures.


def test_triangles_are_where_a_pixel_by_pixel_search_finds_them() -> None:
    generator = np.random.default_rng(0)
    points, depths = generator.uniform(-5, 35, (30, 2)), generator.uniform(1, 3, 30)
    faces = generator.integers(0, 30, (25, 3))
    faces = faces[(faces[:, 0] != faces[:, 1]) & (faces[:, 1] != faces[:, 2]) & (faces[:, 0] != faces[:, 2])]
    raster = rasterize(points, depths, faces, (24, 30))
    for y in range(24):
        for x in range(30):
            best, nearest, shares = -1, np.inf, np.zeros(3)
            for index, face in enumerate(faces):
                matrix = np.concatenate([points[face].T, np.ones((1, 3))])
                flat = np.linalg.solve(matrix, [x + 0.5, y + 0.5, 1])
                if (flat >= 0).all():
                    distance = 1 / (flat / depths[face]).sum()
                    if distance < nearest:
                        best, nearest = index, distance
                        shares = flat / depths[face] * distance
            assert raster.face[y, x] == best
            np.testing.assert_allclose(raster.weights[y, x], shares, atol=1e-9)


def test_what_is_behind_the_camera_or_outside_is_not_drawn() -> None:
    points = np.array([[2.0, 2], [8, 2], [2, 8]])
    assert not rasterize(points, np.array([-1.0, 1, 1]), np.array([[0, 1, 2]]), (10, 10)).covered.any()
    assert not rasterize(points + 100, np.ones(3), np.array([[0, 1, 2]]), (10, 10)).covered.any()
    assert rasterize(points, np.ones(3), np.array([[2, 1, 0]]), (10, 10)).covered.sum() > 10
    assert not rasterize(points, np.ones(3), np.empty((0, 3), np.int64), (4, 4)).covered.any()


def test_normals_point_outwards() -> None:
    hand = procedural_hand()
    normals = vertex_normals(hand.template, hand.faces)
    np.testing.assert_allclose(np.linalg.norm(normals, axis=1), 1)
    tip = hand.tips[2]
    assert normals[tip] @ HandAxes.of(hand).frame[1] > 0.5, "a fingertip looks along the finger"


def test_fingers_bend_to_the_palm_within_limits() -> None:
    hand = procedural_hand()
    for arrays in (hand, hand.mirrored()):
        axes = HandAxes.of(arrays)
        np.testing.assert_allclose(np.linalg.norm(axes.bend, axis=1), 1)
        model = HandModel.of(arrays, torch.float64)
        flat = torch.zeros(1, 16, 3, dtype=torch.float64)
        bent = flat.clone()
        for finger in range(5):
            bent[0, 1 + 3 * finger : 4 + 3 * finger] = torch.from_numpy(axes.bend[finger] * 0.5)
        shape = torch.zeros(1, 10, dtype=torch.float64)
        tips = [model(model.rotations(pose.flatten(1)), shape)[1][0, 4::4].numpy() for pose in (flat, bent)]
        assert ((tips[1] - tips[0])[1:] @ axes.frame[2] > 0.01).all(), "towards the palm"
    generator = np.random.default_rng(0)
    angles = np.stack([np.linalg.norm(random_pose(HandAxes.of(hand), generator), axis=1) for _ in range(300)])
    assert np.degrees(angles[:, 1:]).max() < 101
    assert np.degrees(angles[:, 1:13]).max(0).min() > 40, "every joint of the fingers bends now and then"
    assert (angles[:, 0] == 0).all()


def test_makers_see_their_own_hand_only() -> None:
    """A synthetic hand's mask is where its mesh is, and the hand fills its share of the image."""
    maker = HandMaker(procedural_hand(), open_images("sample", "train"), SIDE)
    extents = []
    for seed in range(4):
        made = maker.make(np.random.default_rng(seed))
        places = project(made.vertices, made.intrinsics)
        extents.append(np.ptp(places, axis=0).max() / SIDE)
        assert (np.abs((places.min(0) + places.max(0)) / 2 / SIDE - 0.5) < 0.08).all()
        assert made.pose.shape == (3 * TURNING,)
    assert min(extents) > 0.45
    assert max(extents) < 0.85


def test_images_can_be_sent_to_workers(folder: Path) -> None:
    import pickle

    images = open_freihand(folder, "train")
    assert isinstance(images, HandImages)
    again = pickle.loads(pickle.dumps(images))
    np.testing.assert_array_equal(again.ground_truth(3).vertices, images.ground_truth(3).vertices)
