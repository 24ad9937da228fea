"""Errors of meshes and joints, as FreiHAND's published evaluation measures them (arXiv 1909.04349)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torchmetrics
from scipy.spatial import KDTree
from torch import Tensor

from fastvit.tasks.hand_mesh.skeleton import JOINTS

# Thresholds of F, and of the curve whose area is taken, meters.
_F_SCORES = {"f5": 0.005, "f15": 0.015}
_STEPS = 100
# Mean distances, millimeters.
_LENGTHS = ("pa_mpjpe", "pa_mpvpe", "mpjpe", "mpvpe")
METRICS = (*_LENGTHS, *_F_SCORES, "auc")
THRESHOLDS = torch.linspace(0, 0.05, _STEPS, dtype=torch.float64)


def aligned(points: Tensor, target: Tensor) -> Tensor:
    """(B, N, 3) points moved, turned and scaled so that they lie on the target as nearly as can be, each by itself.

    The similarity of least squares (Umeyama 1991), without mirroring: where the best orthogonal map mirrors, the best
    rotation is taken. Points that lie all on one place stay there.
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
    """For each threshold (B,): harmonic mean of the shares of points of either set that have one of the other nearer.

    Args:
        points: (B, N, 3).
        target: (B, M, 3).
        thresholds: in the unit of the points.
    """
    nearest, scores = (_nearest(points, target), _nearest(target, points)), []
    for threshold in thresholds:
        precision, recall = ((side < threshold).to(points.dtype).mean(1) for side in nearest)
        scores.append(2 * precision * recall / (precision + recall).clamp_min(torch.finfo(points.dtype).tiny))
    return scores


def _nearest(points: Tensor, others: Tensor) -> Tensor:
    """(B, N) distance of each point from the nearest of the others, as float64."""
    pairs = zip(others.numpy(force=True), points.numpy(force=True), strict=True)
    return torch.stack([torch.from_numpy(KDTree(there).query(here)[0]) for there, here in pairs])


def shares_nearer(errors: Tensor) -> Tensor:
    """(B, N) errors in meters -> (B, 100) shares of the points that are at most each of THRESHOLDS off."""
    return (errors[..., None] <= THRESHOLDS.to(errors)).to(errors.dtype).mean(1)


class HandMetrics(torchmetrics.Metric):
    """Means over images, updated with (outputs, targets): "joints" (B, 21, 3), "vertices" (B, V, 3), meters.

    Both are from their root joints. Millimeters: "pa_mpjpe" and "pa_mpvpe", of joints and of vertices after their own
    alignment in each image, "mpjpe" and "mpvpe" with the root joints on each other. Fractions: "f5" and "f15", of
    aligned vertices at 5 and 15 mm, and "auc", of aligned joints' errors up to 50 mm. NaN before there is an image.
    """

    higher_is_better = False
    full_state_update = False

    def __init__(self) -> None:
        super().__init__()
        for name in (*_LENGTHS, *_F_SCORES, "images"):
            self.add_state(name, torch.zeros(()), dist_reduce_fx="sum")
        self.add_state("by_joint", torch.zeros(len(JOINTS)), dist_reduce_fx="sum")
        self.add_state("nearer", torch.zeros(_STEPS), dist_reduce_fx="sum")

    def update(self, outputs: dict[str, Tensor], targets: dict[str, Tensor]) -> None:
        # On the CPU, in float64: not every device has that, or singular values.
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
        """(100,) distances, 0 to 50 mm, and the shares of the aligned joints that are at most as far off."""
        return 1000 * THRESHOLDS.to(self.nearer), self.nearer / self.images

    def per_joint(self) -> Tensor:
        """(21,) mean error of each joint after alignment, millimeters."""
        return 1000 * self.by_joint / self.images
