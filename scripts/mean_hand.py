"""What the mean hand scores on a folder in FreiHAND's layout: the baseline of docs/hand_mesh.md.

    fastvit synth hands data/hands
    python scripts/mean_hand.py data/hands

Two constant outputs for every evaluation image: the mean of the training meshes as they lie in space, from their root
joints, and the hand model with the mean of the training poses and shapes, turned as the first mean is.
"""

from __future__ import annotations

import argparse

import numpy as np
import torch
from torch import Tensor

from fastvit.tasks.hand_mesh.freihand import HandImages, open_freihand
from fastvit.tasks.hand_mesh.hand_model import HandModel
from fastvit.tasks.hand_mesh.metrics import HandMetrics, aligned
from fastvit.tasks.hand_mesh.skeleton import ROOT


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", help="folder in FreiHAND's layout")
    parser.add_argument("--hand", help="the hand model; by default the folder's own, else MANO's")
    arguments = parser.parse_args()
    train, test = (open_freihand(arguments.data, split, arguments.hand) for split in ("train", "test"))
    mean = {name: value.mean(0, keepdim=True) for name, value in ground_truths(train).items()}
    turned = {name: aligned(value, mean[name]) for name, value in mean_pose(train).items()}
    # Aligning shrinks it; a hand has its own size.
    turned = {name: _as_large(turned[name], value) for name, value in mean_pose(train).items()}
    for title, output in (("mean mesh", mean), ("mean pose and shape", turned)):
        metrics, targets = HandMetrics(), ground_truths(test)
        metrics.update({name: value.expand_as(targets[name]) for name, value in output.items()}, targets)
        shown = ", ".join(f"{name} {float(value):.3f}" for name, value in metrics.compute().items())
        print(f"{title}: {shown}")


def ground_truths(images: HandImages) -> dict[str, Tensor]:
    """Joints and vertices of all images from their root joints."""
    found = [images.ground_truth(index) for index in range(len(images))]
    roots = np.stack([one.joints[ROOT] for one in found])[:, None]
    return {
        "joints": torch.from_numpy(np.stack([one.joints for one in found]) - roots),
        "vertices": torch.from_numpy(np.stack([one.vertices for one in found]) - roots),
    }


def mean_pose(images: HandImages) -> dict[str, Tensor]:
    """The hand model with the mean of the joints' angles and of the shapes, not turned as a whole."""
    found = [images.ground_truth(index) for index in range(len(images))]
    pose, shape = (np.mean([getattr(one, name) for one in found], 0) for name in ("pose", "shape"))
    pose[:3] = 0
    assert images.hand is not None
    model = HandModel.of(images.hand, torch.float64)
    turns = model.rotations(torch.from_numpy(pose)[None], mean=True)
    vertices, joints = model(turns, torch.from_numpy(shape)[None])
    return {"joints": joints - joints[:, ROOT : ROOT + 1], "vertices": vertices - joints[:, ROOT : ROOT + 1]}


def _as_large(points: Tensor, like: Tensor) -> Tensor:
    spread = [(part - part.mean(1, keepdim=True)).norm() for part in (like, points)]
    return (points - points.mean(1, keepdim=True)) * spread[0] / spread[1] + points.mean(1, keepdim=True)


if __name__ == "__main__":
    main()
