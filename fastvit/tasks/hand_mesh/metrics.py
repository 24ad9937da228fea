"""Metrics of meshes and joints, as in FreiHAND's published evaluation (arXiv 1909.04349)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torchmetrics
from scipy.spatial import KDTree
from torch import Tensor

from fastvit.tasks.hand_mesh.skeleton import JOINTS

# Thresholds of the F-scores in meters, and number of thresholds of the curve for the AUC.
_F_SCORES = {"f5": 0.005, "f15": 0.015}
_THRESHOLD_COUNT = 100
# Mean distances, in millimeters.
_LENGTHS = ("pa_mpjpe", "pa_mpvpe", "mpjpe", "mpvpe")
METRICS = (*_LENGTHS, *_F_SCORES, "auc")
THRESHOLDS = torch.linspace(0, 0.05, _THRESHOLD_COUNT, dtype=torch.float64)


def aligned(points: Tensor, target: Tensor) -> Tensor:
    """Align each set of points (B, N, 3) with its target by translation, rotation and scale (Procrustes alignment).

    The least-squares similarity (Umeyama 1991) without mirroring: if the best orthogonal map mirrors, the best rotation
    is used. Points that coincide are only moved.
    """
    mean, goal = points.mean(1, keepdim=True), target.mean(1, keepdim=True)
    centered, wanted = points - mean, target - goal
    u, values, v = torch.linalg.svd(wanted.transpose(1, 2) @ centered)
    sign = torch.ones_like(values)
    sign[:, -1] = torch.det(u @ v).sign()
    rotation = (u * sign[:, None]) @ v
    spread = centered.square().sum((1, 2)).clamp_min(torch.finfo(points.dtype).tiny)
    scale = (values * sign).sum(1) / spread
    return scale[:, None, None] * centered @ rotation.transpose(1, 2) + goal


def f_scores(points: Tensor, target: Tensor, thresholds: Sequence[float]) -> list[Tensor]:
    """Compute the F-score at each threshold, (B,): harmonic mean of precision and recall.

    Precision is the fraction of the points with a target point nearer than the threshold, recall the fraction of the
    target points with a point nearer than it.

    Args:
        points: (B, N, 3) predicted points.
        target: (B, M, 3) target points.
        thresholds: distances in the unit of the points.
    """
    nearest, scores = (_nearest(points, target), _nearest(target, points)), []
    for threshold in thresholds:
        precision, recall = ((side < threshold).to(points.dtype).mean(1) for side in nearest)
        scores.append(2 * precision * recall / (precision + recall).clamp_min(torch.finfo(points.dtype).tiny))
    return scores


def _nearest(points: Tensor, others: Tensor) -> Tensor:
    """Return the distance of each point to the nearest of the others, (B, N) float64."""
    pairs = zip(others.numpy(force=True), points.numpy(force=True), strict=True)
    return torch.stack([torch.from_numpy(KDTree(there).query(here)[0]) for there, here in pairs])


def shares_nearer(errors: Tensor) -> Tensor:
    """Return the fraction of the errors (B, N), in meters, that are at most each of THRESHOLDS: (B, 100)."""
    return (errors[..., None] <= THRESHOLDS.to(errors)).to(errors.dtype).mean(1)


class HandMetrics(torchmetrics.Metric):
    """Metrics of hand meshes, averaged over images; NaN without images.

    `update` takes outputs and targets with "joints" (B, 21, 3) and "vertices" (B, V, 3), in meters from the root joint.
    In millimeters: "pa_mpjpe" and "pa_mpvpe", mean errors of joints and vertices after Procrustes alignment in each
    image; "mpjpe" and "mpvpe", the same without alignment. Fractions: "f5" and "f15", F-scores of aligned vertices at
    5 and 15 mm; "auc", area under the curve of aligned joints' errors up to 50 mm.
    """

    higher_is_better = False
    full_state_update = False

    def __init__(self) -> None:
        super().__init__()
        for name in (*_LENGTHS, *_F_SCORES, "images"):
            self.add_state(name, torch.zeros(()), dist_reduce_fx="sum")
        self.add_state("by_joint", torch.zeros(len(JOINTS)), dist_reduce_fx="sum")
        self.add_state("nearer", torch.zeros(_THRESHOLD_COUNT), dist_reduce_fx="sum")

    def update(self, outputs: dict[str, Tensor], targets: dict[str, Tensor]) -> None:
        # On the CPU in float64: not every device supports float64 or the SVD.
        joints, true_joints = (side["joints"].detach().cpu().double() for side in (outputs, targets))
        mesh, true_mesh = (side["vertices"].detach().cpu().double() for side in (outputs, targets))
        fitted = aligned(mesh, true_mesh)
        joint_errors = (aligned(joints, true_joints) - true_joints).norm(dim=2)
        found = {
            "pa_mpjpe": joint_errors.mean(1),
            "pa_mpvpe": (fitted - true_mesh).norm(dim=2).mean(1),
            "mpjpe": (joints - true_joints).norm(dim=2).mean(1),
            "mpvpe": (mesh - true_mesh).norm(dim=2).mean(1),
            **dict(zip(_F_SCORES, f_scores(fitted, true_mesh, list(_F_SCORES.values())), strict=True)),
        }
        for name, values in found.items():
            getattr(self, name).add_(values.sum().to(self.images))
        self.by_joint += joint_errors.sum(0).to(self.by_joint)
        self.nearer += shares_nearer(joint_errors).sum(0).to(self.nearer)
        self.images += len(joints)

    def compute(self) -> dict[str, Tensor]:
        lengths = {name: 1000 * getattr(self, name) / self.images for name in _LENGTHS}
        shares = {name: getattr(self, name) / self.images for name in _F_SCORES}
        thresholds, shares_of_joints = self.curve()
        return lengths | shares | {"auc": torch.trapezoid(shares_of_joints, thresholds) / thresholds[-1]}

    def curve(self) -> tuple[Tensor, Tensor]:
        """Return distances (100,), 0 to 50 mm, and the fraction of aligned joints with an error up to each (100,)."""
        return 1000 * THRESHOLDS.to(self.nearer), self.nearer / self.images

    def per_joint(self) -> Tensor:
        """Return the mean error of each joint after alignment, (21,), in millimeters."""
        return 1000 * self.by_joint / self.images
