"""Differentiable hand model: MANO's linear blend skinning (arXiv 2201.02610)."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from fastvit.errors import UserError
from fastvit.tasks.hand_mesh.hand_file import HandArrays
from fastvit.tasks.hand_mesh.rotations import from_axis_angle, from_six
from fastvit.tasks.hand_mesh.skeleton import TO_FREIHAND, TURNING, TURNING_FINGERS

PoseForm = Literal["axis_angle", "matrix", "six"]
_ARRAYS = (
    *("template", "shape_directions", "pose_directions", "joint_regressor", "weights"),
    *("pose_mean", "pose_components"),
)


class HandModel(nn.Module):
    """Hand model: joint rotations and shape coefficients to vertices and joints, in meters.

    The hand rotates about its wrist, whose position depends on the shape only. The arrays are buffers, so they are
    saved, moved and cast with the module that contains the hand.

    Args:
        vertices: number of vertices V of the mesh.
        shapes: number of shape coefficients S.

    Attributes:
        template: (V, 3) vertices of the mean hand; this and the other buffers are the arrays of
            `fastvit.tasks.hand_mesh.hand_file.HandArrays`.
    """

    template: Tensor
    shape_directions: Tensor
    pose_directions: Tensor
    joint_regressor: Tensor
    weights: Tensor
    pose_mean: Tensor
    pose_components: Tensor
    tips: Tensor

    def __init__(self, vertices: int, shapes: int = 10) -> None:
        super().__init__()
        free = TURNING - 1
        shapes_of = {
            "template": (vertices, 3),
            "shape_directions": (vertices, 3, shapes),
            "pose_directions": (vertices, 3, 9 * free),
            "joint_regressor": (TURNING, vertices),
            "weights": (vertices, TURNING),
            "pose_mean": (3 * free,),
            "pose_components": (3 * free, 3 * free),
        }
        for name, shape in shapes_of.items():
            self.register_buffer(name, torch.zeros(shape))
        self.register_buffer("tips", torch.zeros(5, dtype=torch.int64))

    @classmethod
    def of(cls, arrays: HandArrays, dtype: torch.dtype = torch.float32) -> HandModel:
        """Create the model from the arrays of a hand."""
        model = cls(*arrays.shape_directions.shape[::2])
        for name in _ARRAYS:
            setattr(model, name, torch.from_numpy(getattr(arrays, name).copy()).to(dtype))
        model.tips = torch.from_numpy(arrays.tips.copy())
        return model

    def rotations(self, pose: Tensor, form: PoseForm = "axis_angle", mean: bool = False) -> Tensor:
        """Convert a pose to the joints' rotations relative to their parents, (B, 16, 3, 3), in MANO's order.

        The first rotation is that of the hand itself.

        Args:
            pose: "axis_angle": (B, 48) in radians, or (B, 3 + k), where the last k, up to 45, are coefficients of the
                principal components; "matrix": (B, 16, 3, 3) rotation matrices; "six": (B, 96), six values per joint,
                see `fastvit.tasks.hand_mesh.rotations.from_six`.
            form: form of the pose, see `pose`.
            mean: add MANO's mean pose to the 15 joints' angles, as in FreiHAND's annotations; by default the angles
                are relative to the flat hand.

        Raises:
            UserError: the shape of the pose does not fit its form.
        """
        if form == "matrix" and pose.shape[1:] == (TURNING, 3, 3):
            return pose
        if form == "six" and pose.shape[1:] == (6 * TURNING,):
            return from_six(pose.unflatten(1, (TURNING, 6)))
        if form == "axis_angle" and pose.ndim == 2 and 3 < pose.shape[1] <= 3 * TURNING:
            free = pose[:, 3:]
            if pose.shape[1] < 3 * TURNING:
                free = free @ self.pose_components[: free.shape[1]]
            free = free + self.pose_mean if mean else free
            return from_axis_angle(torch.cat([pose[:, :3], free], 1).unflatten(1, (TURNING, 3)))
        raise UserError(f"a pose as {form} cannot have the shape {tuple(pose.shape)}: see HandModel.rotations")

    def forward(self, rotations: Tensor, shape: Tensor) -> tuple[Tensor, Tensor]:
        """Pose the hand.

        Args:
            rotations: (B, 16, 3, 3) rotations of the joints relative to their parents.
            shape: (B, S) shape coefficients.

        Returns:
            Vertices (B, V, 3) and joints (B, 21, 3) in FreiHAND's order.
        """
        batch = rotations.shape[0]
        shaped = self.template + (shape @ self.shape_directions.flatten(0, 1).T).unflatten(1, self.template.shape)
        rest = self.joint_regressor @ shaped
        bends = rotations[:, 1:] - torch.eye(3, dtype=rotations.dtype, device=rotations.device)
        corrected = shaped + (bends.flatten(1) @ self.pose_directions.flatten(0, 1).T).unflatten(1, self.template.shape)
        turned, joints = _kinematics(rotations, rest)
        shifts = joints - (turned @ rest[..., None])[..., 0]
        moves = torch.cat([turned.flatten(2), shifts], 2)
        each = self.weights @ moves
        vertices = (each[..., :9].reshape(batch, -1, 3, 3) @ corrected[..., None])[..., 0] + each[..., 9:]
        return vertices, torch.cat([joints, vertices[:, self.tips]], 1)[:, list(TO_FREIHAND)]

    def joints(self, vertices: Tensor) -> Tensor:
        """Estimate the joints (B, 21, 3), in FreiHAND's order, as sums of the vertices (B, V, 3) in any pose."""
        return torch.cat([self.joint_regressor @ vertices, vertices[:, self.tips]], 1)[:, list(TO_FREIHAND)]


def _kinematics(local: Tensor, rest: Tensor) -> tuple[Tensor, Tensor]:
    """Return rotations (B, 16, 3, 3) and positions (B, 16, 3) of the joints; all fingers are computed together."""
    fingers, levels = len(TURNING_FINGERS), 3
    turns = local[:, 1:].unflatten(1, (fingers, levels))
    chain = rest[:, 1:].unflatten(1, (fingers, levels))
    turned, place, before = local[:, :1], rest[:, :1], rest[:, :1]
    all_turned, all_places = [], []
    for level in range(levels):
        place = place + (turned @ (chain[:, :, level] - before)[..., None])[..., 0]
        turned, before = turned @ turns[:, :, level], chain[:, :, level]
        all_turned.append(turned)
        all_places.append(place)
    rotations = torch.cat([local[:, :1], torch.stack(all_turned, 2).flatten(1, 2)], 1)
    return rotations, torch.cat([rest[:, :1], torch.stack(all_places, 2).flatten(1, 2)], 1)
