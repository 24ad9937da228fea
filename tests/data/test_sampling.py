"""Orders and seeds that follow from numbers alone."""

from __future__ import annotations

import math
import random

import lightning as L
import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from fastvit.data.arrays import ArrayImages
from fastvit.data.augmentation import Augmentation
from fastvit.data.datasets import IGNORED, ImageDataset
from fastvit.data.sampling import PADDING, EvaluationShare, SampleIndex, TrainBatches, seed_of, seeded
from fastvit.data.transforms import eval_pixels, normalize, train_pixels
from fastvit.data.workers import leave_signals_to_the_run
from fastvit.model.preprocessing import Preprocessing

SMALL = Preprocessing((16, 16))


def pictures(count: int = 12) -> ArrayImages:
    pixels = np.random.default_rng(0).integers(0, 256, (count, 20, 24, 3), np.uint8)
    return ArrayImages(pixels, [i % 3 for i in range(count)], "abc", "made up")


def images(batches: TrainBatches) -> list[list[int]]:
    return [[draw.image for draw in batch] for batch in batches]


def test_an_epoch_has_every_image_once_and_the_next_another_order() -> None:
    batches = TrainBatches(12, 4, seed=3)
    first = images(batches)
    assert sorted(sum(first, [])) == list(range(12))
    assert images(batches) == first
    batches.set_epoch(1)
    assert sorted(sum(images(batches), [])) == list(range(12))
    assert images(batches) != first
    assert {draw.seed for batch in batches for draw in batch}.isdisjoint(
        draw.seed for batch in TrainBatches(12, 4, seed=3) for draw in batch
    )


@pytest.mark.parametrize("processes", [2, 4])
def test_processes_share_each_global_batch(processes: int) -> None:
    whole = images(TrainBatches(50, 8, seed=1))
    shares = [images(TrainBatches(50, 8 // processes, 1, rank, processes)) for rank in range(processes)]
    assert [sum(parts, []) for parts in zip(*shares, strict=True)] == whole
    assert len(whole) == len(TrainBatches(50, 8, seed=1)) == 6


def test_a_trainer_goes_from_epoch_to_epoch() -> None:
    class Recorder(L.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.layer = torch.nn.Linear(1, 1)
            self.seen: list[list[int]] = [[], [], []]

        def training_step(self, batch: torch.Tensor, batch_idx: int) -> torch.Tensor:
            self.seen[self.current_epoch] += batch.tolist()
            return self.layer(torch.ones(1)).sum()

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.parameters(), 0.1)

    class Numbers(torch.utils.data.Dataset[int]):
        def __getitem__(self, key: SampleIndex) -> int:
            return key.image

        def __len__(self) -> int:
            return 12

    recorder = Recorder()
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    trainer = L.Trainer(max_epochs=3, accelerator="cpu", enable_model_summary=False, log_every_n_steps=1, **quiet)
    trainer.fit(recorder, DataLoader(Numbers(), batch_sampler=TrainBatches(12, 4, seed=3)))
    assert recorder.seen == [sum(images(TrainBatches(12, 4, seed=3, epoch=epoch)), []) for epoch in range(3)]


def test_going_on_inside_an_epoch() -> None:
    whole = TrainBatches(40, 4, seed=0, epoch=2)
    rest = TrainBatches(40, 4, seed=0, epoch=2, start=7)
    rest.set_epoch(2)
    assert list(rest) == list(whole)[7:]
    assert len(rest) == 10, "a trainer that counts from the start needs the whole length"
    for epoch in (3, 0):
        rest.set_epoch(epoch)
        assert list(rest) == list(TrainBatches(40, 4, seed=0, epoch=epoch))


def test_few_images_are_one_batch() -> None:
    assert [len(batch) for batch in TrainBatches(5, 8, seed=0)] == [5]
    assert [len(batch) for batch in TrainBatches(5, 8, seed=0, rank=1, processes=2)] == [2]


@pytest.mark.parametrize("processes", [1, 2, 3, 5])
@pytest.mark.parametrize("length", [0, 1, 4, 10, 12])
def test_evaluation_shares_are_even_and_have_every_image_once(length: int, processes: int) -> None:
    shares = [list(EvaluationShare(length, rank, processes)) for rank in range(processes)]
    assert sorted(i for share in shares for i in share if i != PADDING) == list(range(length))
    assert {len(share) for share in shares} == {math.ceil(length / processes)}, "one step for each, and no more"
    assert all(len(EvaluationShare(length, rank, processes)) == len(shares[rank]) for rank in range(processes))


def test_seeds_differ_with_every_number() -> None:
    seeds = {seed_of(a, b, c) for a in range(8) for b in range(8) for c in range(8)}
    assert len(seeds) == 512


def test_a_seeded_block_leaves_no_trace() -> None:
    torch.manual_seed(0)
    random.seed(0)
    np.random.seed(0)
    expected = torch.rand(1), random.random(), np.random.rand()
    torch.manual_seed(0)
    random.seed(0)
    np.random.seed(0)
    with seeded(5):
        inside = torch.rand(1), random.random(), np.random.rand()
    assert (torch.rand(1), random.random(), np.random.rand()) == expected
    with seeded(5):
        assert (torch.rand(1), random.random(), np.random.rand()) == inside


def test_augmentation_follows_the_draw_whatever_the_workers() -> None:
    dataset = ImageDataset(pictures(), train_pixels(SMALL, Augmentation()))
    batches = TrainBatches(12, 4, seed=0)
    alone = list(DataLoader(dataset, batch_sampler=batches))
    two = list(DataLoader(dataset, batch_sampler=batches, num_workers=2, worker_init_fn=leave_signals_to_the_run))
    for (ours, labels), (theirs, their_labels) in zip(alone, two, strict=True):
        assert torch.equal(ours, theirs)
        assert torch.equal(labels, their_labels)
    assert not torch.equal(dataset[SampleIndex(0, 1)][0], dataset[SampleIndex(0, 2)][0])


@pytest.mark.parametrize("policy", ["rand-m10-inc1", "augmix-m10", "v0"])
def test_augmentation_at_its_strongest(policy: str) -> None:
    """Posterising to no bit at all is what Pillow refuses."""
    transform = train_pixels(SMALL, Augmentation(auto_augment=policy))
    for seed in range(60):
        with seeded(seed):
            assert transform(pictures(1).image(0)).shape == (3, 16, 16)


def test_padding_counts_nowhere() -> None:
    image, label = ImageDataset(pictures(), eval_pixels(SMALL))[PADDING]
    assert (image.shape, image.dtype, label) == ((3, 16, 16), torch.uint8, IGNORED)


def test_pixels_are_normalized_on_batches_as_on_images() -> None:
    preprocessing = Preprocessing((16, 16), mean=(0.1, 0.2, 0.3), std=(0.5, 0.25, 1.0))
    pixels = torch.stack([eval_pixels(preprocessing)(pictures().image(i)) for i in range(2)])
    assert pixels.dtype == torch.uint8
    by_hand = (pixels.double() / 255 - torch.tensor([0.1, 0.2, 0.3]).view(3, 1, 1)) / torch.tensor([0.5, 0.25, 1]).view(
        3, 1, 1
    )
    torch.testing.assert_close(normalize(pixels, preprocessing).double(), by_hand, rtol=0, atol=1e-6)
    gray = Preprocessing((16, 16)).for_channels(1)
    assert normalize(eval_pixels(gray)(Image.new("L", (9, 9))), gray).shape == (1, 16, 16)
