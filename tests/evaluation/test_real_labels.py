"""ImageNet ReaL against timm's own count."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pytest
import torch
from PIL import Image
from timm.data import RealLabelsImagenet

from fastvit.data.imagenet import imagenet_classes, imagenet_synsets
from fastvit.errors import UserError
from fastvit.tasks.classification.real_labels import real_accuracy, real_labels


@dataclass
class Names:
    """Labeled images that only have names."""

    names: list[str]
    classes: tuple[str, ...] = field(default_factory=imagenet_classes)
    labels: tuple[int, ...] = ()

    def __len__(self) -> int:
        return len(self.names)

    def image(self, index: int) -> Image.Image:
        raise AssertionError("no image is looked at")

    def name(self, index: int) -> str:
        return self.names[index]


def test_against_timm() -> None:
    # In another order than the numbers', as folders have them.
    order = np.random.default_rng(0).permutation(50_000) + 1
    names = [f"val/n01440764/ILSVRC2012_val_{number:08d}.JPEG" for number in order]
    # Outputs over the first ten classes of a thousand are right often enough, and quick to make.
    outputs = torch.randn(50_000, 10, generator=torch.Generator().manual_seed(0))
    theirs = RealLabelsImagenet(names)
    theirs.add_result(outputs)
    ours = real_accuracy(outputs.topk(5).indices.numpy(), real_labels(Names(names)))
    assert 100 * ours["real_top1"] == pytest.approx(theirs.get_accuracy(1))
    assert 100 * ours["real_top5"] == pytest.approx(theirs.get_accuracy(5))
    assert ours["real_top5"] > ours["real_top1"] > 0


def test_images_without_labels_are_not_counted() -> None:
    guesses = np.array([[0, 1, 2, 3, 4], [5, 6, 7, 8, 9], [9, 8, 7, 6, 5]])
    labels = [frozenset({0, 7}), frozenset(), frozenset({5})]
    assert real_accuracy(guesses, labels) == {"real_top1": 0.5, "real_top5": 1.0}
    with pytest.raises(UserError, match="none of these images"):
        real_accuracy(guesses[:1], [frozenset()])


def test_other_data_are_refused() -> None:
    with pytest.raises(UserError, match="these images have 2 classes"):
        real_labels(Names(["a.png"], classes=("cat", "dog")))
    for name in ("cat.png", "ILSVRC2012_val_00000000.JPEG", "ILSVRC2012_val_00050001.JPEG"):
        with pytest.raises(UserError, match=name):
            real_labels(Names([name], classes=imagenet_synsets()))
