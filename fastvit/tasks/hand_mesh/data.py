"""Samples and batches for training and evaluating a hand mesh regressor."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from fastvit.data.datasets import Samples
from fastvit.data.module import RunData, RunImages
from fastvit.data.pixels import eval_array
from fastvit.data.sampling import PADDING
from fastvit.errors import UserError
from fastvit.model.preprocessing import Preprocessing
from fastvit.tasks.hand_mesh.freihand import HandGroundTruth, HandImages, open_freihand
from fastvit.tasks.hand_mesh.options import HandMeshOptions
from fastvit.tasks.hand_mesh.skeleton import JOINTS
from fastvit.tasks.hand_mesh.transforms import TrainTransform, fitted, transformed_targets

Sample = tuple[Tensor, dict[str, Tensor]]


class HandSamples(Samples[Sample]):
    """Images of hands, (C, H, W) uint8, with the tensors of `transformed_targets`.

    The target "index" (int64) is the image's index, or -1 for a sample that no metric counts.

    Args:
        pictures: source of the images and annotations.
        preprocessing: preprocessing of the model.
        options: options of the augmentation of training images.
        unreadable_log: see `fastvit.data.datasets.Samples`.
        skip_unreadable: see `fastvit.data.datasets.Samples`.

    Raises:
        UserError: the preprocessing does not letterbox images into a square.
    """

    pictures: HandImages

    def __init__(
        self,
        pictures: HandImages,
        preprocessing: Preprocessing,
        options: HandMeshOptions | None = None,
        unreadable_log: Path | None = None,
        skip_unreadable: bool = False,
    ) -> None:
        super().__init__(pictures, unreadable_log, skip_unreadable)
        if preprocessing.resize != "letterbox" or preprocessing.size[0] != preprocessing.size[1]:
            raise UserError(
                f'a hand mesh regressor needs square images without a crop: set resize to "letterbox" and an equal '
                f'height and width, not "{preprocessing.resize}" and {preprocessing.size}'
            )
        self.preprocessing = preprocessing
        self._augment = TrainTransform(options or HandMeshOptions(), preprocessing)

    def item(self, index: int, varied: bool) -> Sample:
        image = self.pictures.image(index)
        if varied:
            pixels, transform = self._augment(image)
        else:
            gray = len(self.preprocessing.mean) == 1
            pixels = torch.from_numpy(eval_array(image.convert("L") if gray else image, self.preprocessing))
            transform = fitted((image.height, image.width), self.preprocessing)
        known = self.pictures.ground_truth(index) if self.pictures.has_ground_truth else self._nothing(index)
        size, hand = self.preprocessing.size, self.pictures.hand
        return pixels, transformed_targets(known, transform, hand, size) | {"index": torch.tensor(index)}

    def padding_sample(self) -> Sample:
        pixels = torch.zeros(len(self.preprocessing.mean), *self.preprocessing.size, dtype=torch.uint8)
        transform = fitted(self.preprocessing.size, self.preprocessing)
        target = transformed_targets(self._nothing(0), transform, self.pictures.hand, self.preprocessing.size)
        return pixels, target | {"index": torch.tensor(PADDING)}

    def _nothing(self, index: int) -> HandGroundTruth:
        """Return a placeholder for missing ground truth: all points are at one point in front of the camera."""
        far = np.array([0.0, 0.0, 1.0])
        joints, vertices = (np.tile(far, (count, 1)) for count in (len(JOINTS), self.pictures.vertices))
        return HandGroundTruth(self.pictures.intrinsics(index), joints, vertices, None, None, "right")


def open_for_run(source: str, hand: str | None = None) -> RunImages:
    """Open the training and validation images of a run.

    Args:
        source: folder in FreiHAND's layout.
        hand: hand model, see `fastvit.tasks.hand_mesh.freihand.open_freihand`.

    Raises:
        UserError: files are missing or do not fit each other, or the evaluation images have no ground truth.
    """
    images = RunImages(open_freihand(source, "train", hand), open_freihand(source, "test", hand))
    if not images.val.has_ground_truth:
        raise UserError(
            f"{Path(source) / 'evaluation_xyz.json'}, which validation needs, does not exist: it is in FreiHAND's "
            "second download (FreiHAND_pub_v2_eval.zip)"
        )
    return images


class HandMeshData(RunData):
    """Data module for a folder in FreiHAND's layout.

    Args:
        images: training and validation images, from `open_for_run`.
        preprocessing: preprocessing of the model.
        batch_size: images per step and process, in training and validation.
        options: options of the training.
        others: other arguments of `fastvit.data.module.RunData`.
    """

    train_images: HandImages
    test_images: HandImages

    def __init__(
        self,
        images: RunImages,
        preprocessing: Preprocessing,
        batch_size: int,
        options: HandMeshOptions | None = None,
        **others: Any,
    ) -> None:
        super().__init__(images, preprocessing, batch_size, **others)
        self.options = options or HandMeshOptions()

    def train_dataloader(self) -> DataLoader[Sample]:
        samples = HandSamples(self.train_images, self.preprocessing, self.options, self.unreadable_log)
        return self.train_loader(samples)

    def val_dataloader(self) -> DataLoader[Sample]:
        samples = HandSamples(self.test_images, self.preprocessing, skip_unreadable=self.skip_unreadable)
        return self.val_loader(samples, self.batch_size)
