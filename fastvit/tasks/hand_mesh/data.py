"""Batches for training and evaluating a hand mesh regressor."""

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
    """Images of hands with what is to be learnt of them: (C, H, W) uint8 and the tensors of `transformed_targets`.

    "index" (int64) is an image's place, or -1 where nothing counts.

    Args:
        pictures: where images and annotations come from.
        preprocessing: what the model expects.
        options: how training images are varied.
        others: as `Samples` has them.
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
                f'a hand mesh regressor sees all of an image in a square: set resize to "letterbox", not '
                f'"{preprocessing.resize}" of {preprocessing.size}'
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
        """What stands for the ground truth of an image that has none: a point in front of its camera."""
        far = np.array([0.0, 0.0, 1.0])
        joints, vertices = (np.tile(far, (count, 1)) for count in (len(JOINTS), self.pictures.vertices))
        return HandGroundTruth(self.pictures.intrinsics(index), joints, vertices, None, None, "right")


def open_for_run(source: str, hand: str | None = None) -> RunImages:
    """Open the images of a run; the arguments are those of `fastvit.tasks.hand_mesh.freihand.open_freihand`.

    Raises:
        UserError: as `open_freihand` does, or nothing is known of the evaluation images.
    """
    images = RunImages(open_freihand(source, "train", hand), open_freihand(source, "test", hand))
    if not images.val.has_ground_truth:
        raise UserError(
            f"there is no {Path(source) / 'evaluation_xyz.json'}, on which training is validated: it is in "
            "FreiHAND's second download (FreiHAND_pub_v2_eval.zip)"
        )
    return images


class HandMeshData(RunData):
    """A folder in FreiHAND's layout as batches, shared out among the processes.

    Args:
        images: as `open_for_run` opens them.
        preprocessing: what the model expects.
        batch_size: images a training step, and one of validation.
        options: of training.
        others: as `RunData` has them.
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
