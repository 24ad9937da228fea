"""Errors of hands against SciPy, NumPy, and the definitions of FreiHAND's evaluation."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.linalg import orthogonal_procrustes
from scipy.spatial.distance import cdist
from scipy.spatial.transform import Rotation
from torch import Tensor

from fastvit.tasks.hand_mesh.metrics import HandMetrics, aligned, f_scores, shares_nearer


def points(count: int = 4, size: int = 21, seed: int = 0, noise: float = 0.01) -> tuple[np.ndarray, np.ndarray]:
    """Hands of meters, and the same turned, scaled, moved and disturbed."""
    generator = np.random.default_rng(seed)
    target = generator.normal(0, 0.05, (count, size, 3))
    turns = Rotation.random(count, random_state=seed).as_matrix()
    moved = 1.3 * target @ turns.transpose(0, 2, 1) + generator.normal(0, 0.5, (count, 1, 3))
    return moved + generator.normal(0, noise, target.shape), target


def freihand_aligned(target: np.ndarray, found: np.ndarray) -> np.ndarray:
    """One sample as FreiHAND's evaluation describes it: centered, scaled to unit norm, turned by SciPy's Procrustes."""
    center, spread = target.mean(0), np.linalg.norm(target - target.mean(0))
    shape = (found - found.mean(0)) / np.linalg.norm(found - found.mean(0))
    turn, scale = orthogonal_procrustes((target - center) / spread, shape)
    return shape @ turn.T * scale * spread + center


def as_tensors(*arrays: np.ndarray) -> list[Tensor]:
    return [torch.from_numpy(array) for array in arrays]


def test_alignment_is_freihands() -> None:
    found, target = points()
    ours = aligned(*as_tensors(found, target)).numpy()
    for index in range(len(found)):
        np.testing.assert_allclose(ours[index], freihand_aligned(target[index], found[index]), rtol=0, atol=1e-12)


def test_alignment_undoes_a_similarity_and_is_the_best_one() -> None:
    found, target = points(noise=0)
    np.testing.assert_allclose(aligned(*as_tensors(found, target)).numpy(), target, rtol=0, atol=1e-12)
    found, target = points()
    best = aligned(*as_tensors(found, target)).numpy()
    generator = np.random.default_rng(1)
    for _ in range(20):
        turn = Rotation.from_rotvec(generator.normal(0, 0.02, 3)).as_matrix()
        other = best @ turn.T * generator.normal(1, 0.02) + generator.normal(0, 0.001, 3)
        assert np.square(other - target).sum() > np.square(best - target).sum()


def test_alignment_does_not_mirror() -> None:
    """A left hand is no right one, however it is turned: what only a reflection would fit stays apart."""
    _, target = points()
    mirrored = target * [-1, 1, 1]
    ours = aligned(*as_tensors(mirrored, target)).numpy()
    for index in range(len(target)):
        assert np.abs(freihand_aligned(target[index], mirrored[index]) - target[index]).max() < 1e-12, "SciPy mirrors"
        assert np.linalg.norm(ours[index] - target[index]) > 0.1 * np.linalg.norm(target[index] - target[index].mean(0))
        centered = mirrored[index] - mirrored[index].mean(0)
        turn, _ = Rotation.align_vectors(target[index] - target[index].mean(0), centered)
        expected = turn.apply(centered)
        result = ours[index] - ours[index].mean(0)
        ratio = (result * expected).sum() / (expected * expected).sum()
        np.testing.assert_allclose(result, ratio * expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize("flat", [np.zeros((1, 21, 3)), np.linspace([0, 0, 0], [1, 2, 3], 21)[None]])
def test_alignment_of_points_without_extent(flat: np.ndarray) -> None:
    _, target = points(1)
    result = aligned(*as_tensors(flat, target))
    assert result.isfinite().all()
    np.testing.assert_allclose(result.mean(1).numpy(), target.mean(1), atol=1e-12)


@pytest.mark.parametrize("threshold", [0.005, 0.015])
def test_f_scores_by_nearest_neighbors(threshold: float) -> None:
    generator = np.random.default_rng(0)
    target = generator.normal(0, 0.02, (3, 200, 3))
    found = target[:, ::2] + generator.normal(0, 0.004, (3, 100, 3))
    ours = f_scores(*as_tensors(found, target), [1.0, threshold])[1].numpy()
    for index in range(3):
        nearer = cdist(found[index], target[index]) < threshold
        here, there = nearer.any(1), nearer.any(0)
        precision, recall = here.mean(), there.mean()
        assert ours[index] == pytest.approx(2 * precision * recall / (precision + recall), abs=1e-12)
    assert f_scores(*as_tensors(found, found), [threshold])[0].tolist() == [1, 1, 1]
    assert f_scores(*as_tensors(found + 10, target), [threshold])[0].tolist() == [0, 0, 0]


def test_all_of_them_over_batches() -> None:
    joints, true_joints = points(5, 21)
    mesh, true_mesh = points(5, 60, seed=1, noise=0.004)
    metrics = HandMetrics()
    for part in (slice(0, 3), slice(3, 5)):
        outputs = {"joints": torch.from_numpy(joints[part]).float(), "vertices": torch.from_numpy(mesh[part]).float()}
        targets = {"joints": torch.from_numpy(true_joints[part]), "vertices": torch.from_numpy(true_mesh[part])}
        metrics.update(outputs, targets)
    found = {name: float(value) for name, value in metrics.compute().items()}

    errors = [np.linalg.norm(freihand_aligned(t, j) - t, axis=1) for j, t in zip(joints, true_joints, strict=True)]
    fitted = [freihand_aligned(t, m) for m, t in zip(mesh, true_mesh, strict=True)]
    thresholds = np.linspace(0, 0.05, 100)
    curve = [(np.concatenate(errors) <= threshold).mean() for threshold in thresholds]
    expected = {
        "pa_mpjpe": 1000 * np.mean(errors),
        "pa_mpvpe": 1000 * np.mean([np.linalg.norm(f - t, axis=1) for f, t in zip(fitted, true_mesh, strict=True)]),
        "mpjpe": 1000 * np.linalg.norm(joints - true_joints, axis=2).mean(),
        "mpvpe": 1000 * np.linalg.norm(mesh - true_mesh, axis=2).mean(),
        "auc": np.trapezoid(curve, thresholds) / 0.05,
    }
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, rel=1e-5), name
    assert 0 < found["f5"] < found["f15"] <= 1
    np.testing.assert_allclose(metrics.per_joint().numpy(), 1000 * np.mean(errors, 0), rtol=1e-5)
    distances, shares = metrics.curve()
    np.testing.assert_allclose(distances.numpy(), 1000 * thresholds, rtol=1e-6)
    np.testing.assert_allclose(shares.numpy(), curve, rtol=1e-5)


def test_before_there_is_an_image_there_is_no_number() -> None:
    assert all(value.isnan() for value in HandMetrics().compute().values())


def test_shares_nearer() -> None:
    shares = shares_nearer(torch.tensor([[0.0, 0.025, 0.06]], dtype=torch.float64))[0]
    assert shares[0] == pytest.approx(1 / 3)
    assert shares[49] == pytest.approx(1 / 3)
    assert shares[50] == pytest.approx(2 / 3)
    assert shares[-1] == pytest.approx(2 / 3)
