"""Make the package's own hand: an implicit surface around a skeleton, meshed, with weights, shapes and corrections.

    pip install scikit-image fast-simplification     # beside fastvit
    python scripts/make_hand.py

Nothing of it is measured on a person or taken from another model: lengths and radii below are round numbers of an
adult's right hand. The palm looks along +z, the fingers point along +y, the thumb is on the side of +x; meters.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import fast_simplification
import numpy as np
from PIL import Image
from scipy.spatial.transform import Rotation
from skimage.measure import marching_cubes

from fastvit.tasks.hand_mesh.hand_file import HandArrays, save_hand
from fastvit.tasks.hand_mesh.rasterizer import rasterize, vertex_normals
from fastvit.tasks.hand_mesh.skeleton import PARENTS, TURNING, TURNING_FINGERS

OUT = Path(__file__).parent.parent / "fastvit" / "tasks" / "hand_mesh" / "procedural_hand.npz"
PICTURE = Path(__file__).parent.parent / "docs" / "images" / "procedural_hand.png"
FACES = 2200
VOXEL = 0.0025
# How far from a joint, in its finger's radii, skin follows both of its bones.
BLEND = 1.1
Factors = dict[str, dict[str, float]]
Distance = Callable[[np.ndarray], np.ndarray]
DIGITS = ("thumb", "index", "middle", "ring", "pinky")


@dataclass(frozen=True)
class Anatomy:
    """What a hand is built from; millimeters.

    Attributes:
        bases: first joint of each digit.
        lengths: of each digit's three bones; the last ends inside the tip.
        angles: of each digit in the plane of the palm, degrees from +y towards +x.
        tilts: of each digit out of the plane of the palm, degrees towards +z.
        radii: of each digit at its three joints and its tip.
        palm: radius of the palm.
    """

    bases: dict[str, tuple[float, float, float]]
    lengths: dict[str, tuple[float, float, float]]
    angles: dict[str, float]
    tilts: dict[str, float]
    radii: dict[str, tuple[float, float, float, float]]
    palm: float

    def scaled(self, factors: Factors) -> Anatomy:
        """With bases, lengths or radii of digits, or all by "", times factors."""
        changes: dict[str, Any] = {
            field: {
                name: tuple(factor.get(name, factor.get("", 1.0)) * value for value in values)
                for name, values in getattr(self, field).items()
            }
            for field, factor in factors.items()
        }
        return replace(self, **changes)

    def joints(self) -> np.ndarray:
        """(16, 3), MANO's order."""
        points = np.zeros((TURNING, 3))
        for finger, name in enumerate(TURNING_FINGERS):
            points[1 + 3 * finger : 4 + 3 * finger] = self.chain(name)[:3]
        return points

    def chain(self, name: str) -> np.ndarray:
        """(4, 3): three joints and the end of the last bone of a digit."""
        angle, tilt = np.deg2rad(self.angles[name]), np.deg2rad(self.tilts[name])
        direction = np.array([np.sin(angle) * np.cos(tilt), np.cos(angle) * np.cos(tilt), np.sin(tilt)])
        steps = np.concatenate([[0.0], np.cumsum(self.lengths[name])])
        return np.array(self.bases[name]) + steps[:, None] * direction


ANATOMY = Anatomy(
    bases={
        "thumb": (20, 24, 8),
        "index": (24, 88, -1),
        "middle": (3, 91, -3),
        "ring": (-17, 86, -2),
        "pinky": (-34, 76, 1),
    },
    lengths={
        "thumb": (43, 33, 19),
        "index": (41, 25, 16),
        "middle": (46, 29, 17),
        "ring": (42, 27, 17),
        "pinky": (33, 19, 15),
    },
    angles={"thumb": 47, "index": 6, "middle": 0, "ring": -5, "pinky": -13},
    tilts={"thumb": 16, "index": 0, "middle": 0, "ring": 0, "pinky": 0},
    radii={
        "thumb": (14.5, 11.5, 10.5, 8.5),
        "index": (11.0, 9.2, 8.2, 7.2),
        "middle": (11.0, 9.4, 8.4, 7.4),
        "ring": (10.5, 8.8, 7.8, 6.9),
        "pinky": (9.5, 7.6, 6.8, 6.1),
    },
    palm=13.0,
)
# What a unit of each shape coefficient does: an eighth or so of the spread among adults.
SHAPES: tuple[Factors, ...] = (
    {"bases": {"": 1.06}, "lengths": {"": 1.06}, "radii": {"": 1.06}},
    {"lengths": {"": 1.06}},
    {"bases": {"": 1.05}},
    {"radii": {"": 1.10}},
    {"lengths": {"thumb": 1.09}},
    {"lengths": {"index": 1.05, "ring": 0.96}},
    {"lengths": {"pinky": 1.10}},
    {"lengths": {"middle": 1.05}},
    {"radii": {"thumb": 1.15}},
    {"radii": {"pinky": 1.08, "ring": 1.06, "index": 0.94}},
)


def capsule(points: np.ndarray, start: np.ndarray, end: np.ndarray, radii: tuple[float, float]) -> np.ndarray:
    """(N,) signed distance, about, to a bone whose thickness goes from one radius to another."""
    along = end - start
    share = np.clip((points - start) @ along / (along @ along), 0, 1)
    return np.linalg.norm(points - start - share[:, None] * along, axis=1) - (radii[0] + share * (radii[1] - radii[0]))


def smooth_min(first: np.ndarray, second: np.ndarray, width: float) -> np.ndarray:
    """The smaller of two distances, rounded where they are about equal."""
    share = np.clip(0.5 + 0.5 * (second - first) / width, 0, 1)
    return second + (first - second) * share - width * share * (1 - share)


def digit_distance(points: np.ndarray, chain: np.ndarray, radii: tuple[float, ...]) -> np.ndarray:
    """(N,) signed distance to a digit of three bones."""
    parts = [capsule(points, chain[i], chain[i + 1], (radii[i], radii[i + 1])) for i in range(3)]
    return smooth_min(smooth_min(parts[0], parts[1], 2.0), parts[2], 2.0)


def palm_distance(points: np.ndarray, anatomy: Anatomy, thumb_joint: np.ndarray) -> np.ndarray:
    """(N,) signed distance to palm, balls of the thumb and of the little finger, and the beginning of the arm."""
    radius = anatomy.palm
    total = np.full(len(points), 1e3)
    for name in DIGITS[1:]:
        start = np.array(anatomy.bases[name]) * (0.35, 0.12, 0)
        part = capsule(points, start, np.array(anatomy.bases[name]), (radius, anatomy.radii[name][0]))
        total = smooth_min(total, part, 9.0)
    ball = capsule(
        points, np.array([12.0, 16.0, 6.0]), 0.35 * np.array(anatomy.bases["thumb"]) + 0.65 * thumb_joint, (14.0, 13.0)
    )
    edge = capsule(
        points, np.array([-15.0, 14.0, 3.0]), np.array(anatomy.bases["pinky"]) * (0.95, 0.75, 1), (13.0, 11.0)
    )
    total = smooth_min(smooth_min(total, ball, 10.0), edge, 9.0)
    flat = np.array([1.0, 1.0, 1.35])  # an arm is wider than it is thick
    arm = capsule(points * flat, np.array([0.0, -34.0, 0.0]), np.array([0.0, 4.0, 0.0]), (24.0, 24.0)) / 1.2
    return smooth_min(total, arm, 10.0)


def surface(points: np.ndarray, anatomy: Anatomy, chains: dict[str, np.ndarray]) -> np.ndarray:
    """(N,) signed distance to the hand, whose digits may be bent: webs between palm and digits, none between digits."""
    palm = palm_distance(points, anatomy, chains["thumb"][1])
    parts = [smooth_min(palm, digit_distance(points, chains[n], anatomy.radii[n]), 7.0) for n in DIGITS]
    cut = -(points[:, 1] + 34.0)
    return np.maximum(np.minimum.reduce(parts), cut)


def meshed(anatomy: Anatomy) -> tuple[np.ndarray, np.ndarray]:
    """Vertices in millimeters and faces of the resting hand."""
    chains = {name: anatomy.chain(name) for name in DIGITS}
    step = 1000 * VOXEL
    low, high = np.array([-65.0, -40.0, -30.0]), np.array([105.0, 200.0, 50.0])
    axes = [np.arange(a, b, step) for a, b in zip(low, high, strict=True)]
    grid = np.stack(np.meshgrid(*axes, indexing="ij"), -1)
    values = surface(grid.reshape(-1, 3), anatomy, chains).reshape(grid.shape[:3])
    vertices, faces, _, _ = marching_cubes(values, 0.0, spacing=(step,) * 3)
    vertices = (vertices + low).astype(np.float64)
    vertices, faces = fast_simplification.simplify(vertices, faces.astype(np.int64), target_count=FACES, agg=7)
    vertices, faces = vertices.astype(np.float64), faces.astype(np.int64)
    volume = np.einsum("ij,ij->i", vertices[faces[:, 0]], np.cross(vertices[faces[:, 1]], vertices[faces[:, 2]])).sum()
    faces = faces if volume > 0 else faces[:, ::-1]
    for _ in range(12):
        vertices = projected(relaxed(vertices, faces), lambda p: surface(p, anatomy, chains))
    return vertices, faces


def relaxed(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Every vertex moved half way to the mean of its neighbors."""
    total, count = np.zeros_like(vertices), np.zeros(len(vertices))
    for a, b in ((0, 1), (1, 2), (2, 0)):
        for here, there in ((faces[:, a], faces[:, b]), (faces[:, b], faces[:, a])):
            np.add.at(total, here, vertices[there])
            np.add.at(count, here, 1)
    return 0.5 * vertices + 0.5 * total / count[:, None]


def projected(vertices: np.ndarray, distance: Distance, steps: int = 3) -> np.ndarray:
    """Points moved onto the surface where the distance is 0, along its gradient."""
    for _ in range(steps):
        value = distance(vertices)
        gradient = np.stack(
            [(distance(vertices + d) - distance(vertices - d)) / 0.02 for d in 0.01 * np.eye(3)], axis=1
        )
        vertices = vertices - (value / np.maximum((gradient**2).sum(1), 0.2))[:, None] * gradient
    return vertices


def step(value: np.ndarray, width: float) -> np.ndarray:
    """0 below -width, 1 above width, smooth between."""
    share = np.clip(0.5 + 0.5 * value / width, 0, 1)
    return share * share * (3 - 2 * share)


def skin(vertices: np.ndarray, anatomy: Anatomy) -> np.ndarray:
    """(V, 16) how much each vertex follows each joint."""
    chains = {name: anatomy.chain(name) for name in DIGITS}
    distances = np.stack([digit_distance(vertices, chains[n], anatomy.radii[n]) for n in DIGITS], 1)
    nearest = np.exp(-(distances - distances.min(1, keepdims=True)) / 0.8)
    nearest /= nearest.sum(1, keepdims=True)
    weights = np.zeros((len(vertices), TURNING))
    for finger, name in enumerate(TURNING_FINGERS):
        place = DIGITS.index(name)
        chain, radii = chains[name], anatomy.radii[name]
        axis = (chain[3] - chain[0]) / np.linalg.norm(chain[3] - chain[0])
        near = step(8.0 - distances[:, place], 6.0)
        passed = [step((vertices - chain[i]) @ axis, BLEND * radii[i]) for i in range(3)]
        passed[0] = passed[0] * near * nearest[:, place]
        first = 1 + 3 * finger
        weights[:, first] = passed[0] * (1 - passed[1])
        weights[:, first + 1] = passed[0] * passed[1] * (1 - passed[2])
        weights[:, first + 2] = passed[0] * passed[1] * passed[2]
    weights[weights < 1e-3] = 0
    weights[:, 0] = 1 - weights.sum(1)
    return weights


def reshaped(vertices: np.ndarray, weights: np.ndarray, anatomy: Anatomy, other: Anatomy) -> np.ndarray:
    """The vertices of a hand on the anatomy of another, each carried along by the bones that it follows."""
    moved = weights[:, :1] * _palm_moved(vertices, anatomy, other)
    for finger, name in enumerate(TURNING_FINGERS):
        old, new = anatomy.chain(name), other.chain(name)
        for bone in range(3):
            along = old[bone + 1] - old[bone]
            share = ((vertices - old[bone]) @ along / (along @ along))[:, None]
            thick = np.clip(share, 0, 1)
            ratio = _mix(other.radii[name], bone, thick) / _mix(anatomy.radii[name], bone, thick)
            offset = vertices - old[bone] - share * along
            beyond = np.maximum(share - 1, 0) * along * (ratio - 1)  # the tip grows with its radius
            place = new[bone] + share * (new[bone + 1] - new[bone]) + ratio * offset
            if bone == 2:
                capped = np.minimum(share, 1)
                place = new[2] + capped * (new[3] - new[2]) + ratio * offset + (share - capped) * along + beyond
            moved += weights[:, 1 + 3 * finger + bone, None] * place
    return moved


def _mix(radii: tuple[float, ...], bone: int, share: np.ndarray) -> np.ndarray:
    return radii[bone] + share * (radii[bone + 1] - radii[bone])


def _palm_moved(vertices: np.ndarray, anatomy: Anatomy, other: Anatomy) -> np.ndarray:
    """Palm and wrist: stretched as the bases of the fingers are, as thick as they become."""
    old, new = (np.array([a.bases[n] for n in DIGITS[1:]]) for a in (anatomy, other))
    across = np.ptp(new[:, 0]) / np.ptp(old[:, 0])
    along = new[:, 1].mean() / old[:, 1].mean()
    thick = np.mean([other.radii[n][0] / anatomy.radii[n][0] for n in DIGITS[1:]])
    return vertices * (across, along, thick)


def regressor(template: np.ndarray, directions: np.ndarray, joints: np.ndarray, moves: np.ndarray) -> np.ndarray:
    """(16, V) weights of nearby vertices that give each joint, of the resting hand and, nearly, of its shapes."""
    result = np.zeros((TURNING, len(template)))
    for joint in range(TURNING):
        near = np.argsort(np.linalg.norm(template - joints[joint], axis=1))[:80]
        rows = np.concatenate([np.ones((1, 80)), template[near].T, 0.3 * directions[near].reshape(80, -1).T])
        wanted = np.concatenate([[1.0], joints[joint], 0.3 * moves[:, joint].T.ravel()])
        even = np.full(80, 1 / 80)
        system = np.concatenate([1e3 * rows[:4], rows[4:], 0.05 * np.eye(80)])
        target = np.concatenate([1e3 * wanted[:4], wanted[4:], 0.05 * even])
        result[joint, near] = np.linalg.lstsq(system, target, rcond=None)[0]
    return result


def corrections(hand: HandArrays, anatomy: Anatomy, poses: int = 260) -> np.ndarray:
    """(V, 3, 135): what keeps bent fingers round, fitted to the implicit surface of hands in random poses.

    Skin that follows several bones collapses where they bend. For every pose the skinned vertices are moved onto the
    surface around the bent bones, the moves are turned back, and a ridge regression on the rotations of each vertex's
    own finger gives the directions.
    """
    generator = np.random.default_rng(0)
    limits = np.deg2rad([85.0, 95.0, 60.0])
    features, moves = np.zeros((poses, 135)), np.zeros((poses, len(hand.template), 3))
    for pose in range(poses):
        local = np.tile(np.eye(3), (TURNING, 1, 1))
        for finger, name in enumerate(TURNING_FINGERS):
            axis, side = bending(anatomy, name)
            reach = 0.5 if name == "thumb" else 1.0
            for bone in range(3):
                turn = axis * generator.uniform(-0.15, 1) * limits[bone] * reach
                turn = turn + side * (generator.normal(0, 0.12) if bone == 0 else 0)
                local[1 + 3 * finger + bone] = Rotation.from_rotvec(turn).as_matrix()
        turned, joints = kinematics(local, hand.joint_regressor @ hand.template)
        rest = hand.joint_regressor @ hand.template
        blend = np.einsum("vj,jab->vab", hand.weights, turned)
        shift = np.einsum("vj,ja->va", hand.weights, joints - np.einsum("jab,jb->ja", turned, rest))
        skinned = np.einsum("vab,vb->va", blend, hand.template) + shift
        chains = {}
        for finger, name in enumerate(TURNING_FINGERS):
            last = 3 + 3 * finger
            end = joints[last] + turned[last] @ (anatomy.chain(name)[3] / 1000 - rest[last])
            chains[name] = 1000 * np.concatenate([joints[last - 2 : last + 1], end[None]])
        target = bent(1000 * skinned, hand, anatomy, chains) / 1000
        gap = target - skinned
        gap *= np.minimum(1, 0.006 / np.maximum(np.linalg.norm(gap, axis=1, keepdims=True), 1e-9))
        moves[pose] = np.linalg.solve(blend, gap[..., None])[..., 0]
        features[pose] = (local[1:] - np.eye(3)).reshape(-1)
    directions = np.zeros((len(hand.template), 3, 135))
    for finger in range(5):
        columns = slice(27 * finger, 27 * finger + 27)
        own = hand.weights[:, 1 + 3 * finger : 4 + 3 * finger].sum(1) > 0.05
        part = features[:, columns]
        solved = np.linalg.solve(part.T @ part + 0.5 * np.eye(27), part.T @ moves[:, own].reshape(poses, -1))
        directions[own, :, columns] = solved.T.reshape(own.sum(), 3, 27)
    directions[np.abs(directions) < 2e-4] = 0
    left = moves - np.einsum("pf,vaf->pva", features, directions)
    before, after = (np.linalg.norm(gaps, axis=2).mean() for gaps in (moves, left))
    print(
        f"skinned vertices are {1000 * before:.2f} mm off the surface of bent fingers, corrected {1000 * after:.2f} mm"
    )
    return directions


def bent(points: np.ndarray, hand: HandArrays, anatomy: Anatomy, chains: dict[str, np.ndarray]) -> np.ndarray:
    """Vertices of digits moved onto the surface of their own bent digit; those of the palm stay."""
    moved = points.copy()
    for finger, name in enumerate(TURNING_FINGERS):
        share = hand.weights[:, 1 + 3 * finger : 4 + 3 * finger].sum(1)
        own = share > 0.6
        target = projected(points[own], partial(digit_distance, chain=chains[name], radii=anatomy.radii[name]))
        moved[own] += step(share[own] - 0.8, 0.2)[:, None] * (target - points[own])
    return moved


def bending(anatomy: Anatomy, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Axes about which a digit bends to the palm, and goes aside."""
    chain = anatomy.chain(name)
    along = (chain[3] - chain[0]) / np.linalg.norm(chain[3] - chain[0])
    palm = np.array([0.0, 0, 1]) if name != "thumb" else np.array([-0.45, 0.35, 0.82])
    axis = np.cross(along, palm)
    axis /= np.linalg.norm(axis)
    return axis, np.cross(axis, along)


def kinematics(local: np.ndarray, rest: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rotations (16, 3, 3) and places (16, 3) of the joints when each is turned by its own rotation."""
    turned, joints = local.copy(), rest.copy()
    for joint in range(1, TURNING):
        parent = PARENTS[joint]
        turned[joint] = turned[parent] @ local[joint]
        joints[joint] = joints[parent] + turned[parent] @ (rest[joint] - rest[parent])
    return turned, joints


def picture(hand: HandArrays) -> Image.Image:
    """The hand open, half closed and closed, from the palm, the side and the back."""
    side, rows = 300, []
    rest = hand.joint_regressor @ hand.template
    for curl in (0.0, 0.5, 1.0):
        local = np.tile(np.eye(3), (TURNING, 1, 1))
        for finger, name in enumerate(TURNING_FINGERS):
            axis, _ = bending(ANATOMY, name)
            for bone, most in enumerate((0.6, 0.5, 0.6) if name == "thumb" else (1.3, 1.6, 1.0)):
                local[1 + 3 * finger + bone] = Rotation.from_rotvec(curl * most * axis).as_matrix()
        turned, joints = kinematics(local, rest)
        start = hand.template + hand.pose_directions @ (local[1:] - np.eye(3)).ravel()
        shift = joints - np.einsum("jab,jb->ja", turned, rest)
        posed = np.einsum("vj,jab,vb->va", hand.weights, turned, start) + hand.weights @ shift
        rows.append(np.hstack([_view(hand, posed, angle, side) for angle in (0, 70, 180)]))
    return Image.fromarray(np.vstack(rows))


def _view(hand: HandArrays, vertices: np.ndarray, angle: float, side: int) -> np.ndarray:
    points = (vertices - (0.02, 0.08, 0)) @ Rotation.from_euler("y", angle, degrees=True).as_matrix().T
    places = side / 2 + np.stack([points[:, 0], -points[:, 1]], 1) * side / 0.24
    raster = rasterize(2 * places, 1 - points[:, 2], hand.faces, (2 * side, 2 * side))
    normals = raster.interpolated(vertex_normals(points, hand.faces), hand.faces)
    image = np.full((2 * side, 2 * side, 3), 255.0)
    image[raster.covered] = (
        np.array([225.0, 170, 140]) * (0.3 + 0.7 * np.clip(normals @ (0.4, 0.5, 0.77), 0, 1))[:, None]
    )
    return image.reshape(side, 2, side, 2, 3).mean((1, 3)).astype(np.uint8)


def main() -> None:
    vertices, faces = meshed(ANATOMY)
    weights = skin(vertices, ANATOMY)
    others = [ANATOMY.scaled(change) for change in SHAPES]
    directions = np.stack(
        [reshaped(vertices, weights, ANATOMY, o) - reshaped(vertices, weights, ANATOMY, ANATOMY) for o in others], -1
    )
    joints = ANATOMY.joints()
    moves = np.stack([other.joints() - joints for other in others])
    matrix = regressor(vertices, directions, joints, moves)
    chains = {name: ANATOMY.chain(name) for name in DIGITS}
    tips = [
        int(
            np.argmax(
                (vertices - chains[n][2]) @ (chains[n][3] - chains[n][2])
                - 1e3 * (digit_distance(vertices, chains[n], ANATOMY.radii[n]) > 1)
            )
        )
        for n in DIGITS
    ]
    hand = HandArrays(
        name="procedural",
        side="right",
        template=vertices / 1000,
        shape_directions=directions / 1000,
        pose_directions=np.zeros((len(vertices), 3, 135)),
        joint_regressor=matrix,
        weights=weights,
        faces=faces,
        pose_mean=np.zeros(45),
        pose_components=np.eye(45),
        tips=np.array(tips),
    )
    error = np.linalg.norm(matrix @ vertices - joints, axis=1)
    drift = [np.linalg.norm(matrix @ directions[..., k] - moves[k], axis=1).max() for k in range(len(others))]
    print(f"joints to {error.max():.4f} mm, of shapes to {max(drift):.3f} mm")
    hand = replace(hand, pose_directions=corrections(hand, ANATOMY))
    save_hand(hand, OUT)
    picture(hand).save(PICTURE)
    print(f"{len(vertices)} vertices, {len(faces)} faces, {OUT.stat().st_size / 1024:.0f} KiB in {OUT}")


if __name__ == "__main__":
    main()
