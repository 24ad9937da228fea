"""Samplers of training and evaluation batches, and their random seeds.

The samplers have no state to save: an epoch's order, an image's augmentation and a step's noise depend on seed, epoch
and index only. So they are the same with any number of workers, and a run that resumes within an epoch uses the images
that it would have used.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
import torch
from torch.utils.data import Sampler

PADDING = -1


class SampleIndex(NamedTuple):
    """Index of a training image in the dataset, and the seed of its augmentation."""

    image: int
    seed: int


def seed_of(*numbers: int) -> int:
    """Derive a 32-bit seed from integers of at least 0; other integers give another seed."""
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])


def seed_everything(seed: int) -> None:
    """Seed Python, NumPy and torch (every device), without a log message."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed Python, NumPy and torch's CPU generator for a block, and restore their states afterwards."""
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    random.seed(seed)
    np.random.seed(seed)
    torch.default_generator.manual_seed(seed)
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.set_rng_state(states[2])


class TrainBatches(Sampler[list[SampleIndex]]):
    """Sampler of one process's training batches, in shuffled epochs; it can start within an epoch.

    The global batch of a step does not depend on the number of processes: each takes its slice of it. An incomplete
    last global batch is dropped, with other images in each epoch, unless it is the only one.

    Args:
        length: number of images.
        batch_size: images per step and process.
        seed: seed of the order and of every SampleIndex.
        rank: rank of this process, from 0.
        processes: number of processes.
        epoch: epoch to start with, from 0.
        start: number of batches of that epoch to skip, because they have been trained on.
    """

    def __init__(
        self, length: int, batch_size: int, seed: int, rank: int = 0, processes: int = 1, epoch: int = 0, start: int = 0
    ) -> None:
        self._length, self._batch_size, self._seed = length, batch_size, seed
        self._rank, self._processes = rank, processes
        self._epoch, self._start = epoch, start

    @property
    def sampler(self) -> TrainBatches:
        """This object: Lightning sets the epoch on the sampler of a batch sampler, not on the batch sampler."""
        return self

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch of the next iteration; another epoch than before starts at its first batch."""
        if epoch != self._epoch:
            self._epoch, self._start = epoch, 0

    def __len__(self) -> int:
        """Return the number of batches of a complete epoch."""
        return max(self._length // (self._batch_size * self._processes), 1)

    def __iter__(self) -> Iterator[list[SampleIndex]]:
        generator = torch.Generator().manual_seed(seed_of(self._seed, self._epoch))
        order = torch.randperm(self._length, generator=generator).tolist()
        share = min(self._batch_size, self._length // self._processes)
        for batch in range(self._start, len(self)):
            first = (batch * self._processes + self._rank) * share
            yield [SampleIndex(i, seed_of(self._seed, self._epoch, i)) for i in order[first : first + share]]


class ShardBatches(TrainBatches):
    """Sampler of training batches from shards; each process and worker reads its own shards, almost in order.

    The order of the shards is shuffled for each epoch. The sequence of samples is cut into equal parts, one for each
    process and worker, so that two of them read at most the shards at a cut. Within a part the samples are shuffled,
    and no sample moves by more than `window` positions. A worker of a DataLoader gets every n-th batch; all of these
    come from one part. Samples at the end that do not fill a global batch are dropped from the epoch.

    Unlike with `TrainBatches`, the composition of a batch depends on the number of processes and workers: a run that
    resumes within an epoch needs the same numbers.

    Args:
        lengths: number of samples of each shard.
        batch_size: images per step and process.
        seed: seed of the order and of every SampleIndex.
        window: largest distance, in samples, by which shuffling moves a sample.
        num_workers: number of workers of the DataLoader; 0 counts as 1.
        rank: rank of this process, from 0.
        processes: number of processes.
        epoch: epoch to start with, from 0.
        start: number of batches of that epoch to skip, because they have been trained on.
    """

    def __init__(
        self,
        lengths: Sequence[int],
        batch_size: int,
        seed: int,
        window: int,
        num_workers: int = 0,
        rank: int = 0,
        processes: int = 1,
        epoch: int = 0,
        start: int = 0,
    ) -> None:
        super().__init__(sum(lengths), batch_size, seed, rank, processes, epoch, start)
        self._lengths, self._window, self._workers = lengths, window, max(num_workers, 1)

    def __iter__(self) -> Iterator[list[SampleIndex]]:
        random_shards = np.random.default_rng(seed_of(self._seed, self._epoch))
        ends = np.cumsum(self._lengths)
        shards = [np.arange(end - length, end) for end, length in zip(ends, self._lengths, strict=True)]
        order = np.concatenate([shards[i] for i in random_shards.permutation(len(shards))])
        share = min(self._batch_size, self._length // self._processes)
        own = order[self._rank * len(self) * share :][: len(self) * share].reshape(len(self), share)
        generator = np.random.default_rng(seed_of(self._seed, self._epoch, self._rank))
        lanes = [_mixed(lane, self._window, generator) for lane in np.array_split(own, self._workers)]
        for batch in range(self._start, len(self)):
            samples = lanes[batch % self._workers][batch // self._workers].tolist()
            yield [SampleIndex(i, seed_of(self._seed, self._epoch, i)) for i in samples]


def _mixed(lane: np.ndarray, window: int, generator: np.random.Generator) -> np.ndarray:
    """Shuffle samples (batches, share) so that none moves by more than `window` positions."""
    positions = np.arange(lane.size) + generator.uniform(0, window, lane.size)
    return lane.ravel()[np.argsort(positions)].reshape(lane.shape)


class EvaluationShare(Sampler[int]):
    """Sampler of every n-th image in order, with PADDING at the end to give all processes the same number of steps."""

    def __init__(self, length: int, rank: int = 0, processes: int = 1) -> None:
        count = -(-length // processes)
        own = list(range(rank, length, processes))
        self._indices: Sequence[int] = own + [PADDING] * (count - len(own))

    def __len__(self) -> int:
        return len(self._indices)

    def __iter__(self) -> Iterator[int]:
        return iter(self._indices)


class ShardShare(EvaluationShare):
    """Sampler of consecutive samples for each process and worker, so that they read different shards.

    PADDING at the end gives all processes the same number of full batches. The order is not that of the data.
    """

    def __init__(self, length: int, batch_size: int, num_workers: int = 0, rank: int = 0, processes: int = 1) -> None:
        count = -(-length // processes)
        steps = -(-count // batch_size)
        own = np.full(steps * batch_size, PADDING)
        samples = np.arange(length)[rank * count : (rank + 1) * count]
        own[: len(samples)] = samples
        lanes = np.array_split(own.reshape(steps, batch_size), max(num_workers, 1))
        self._indices = [i for step in range(steps) for i in lanes[step % len(lanes)][step // len(lanes)].tolist()]
