"""Which images make a batch, and the seed of everything random in it.

Nothing here has a state to save: an epoch's order, an image's augmentation and a step's noise follow from numbers
(seed, epoch, index), so they are the same with any number of workers, and a run that goes on inside an epoch sees what
it would have seen.
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
    """A training image: its place in the dataset, and the seed of its augmentation."""

    image: int
    seed: int


def seed_of(*numbers: int) -> int:
    """A 32-bit seed that follows from numbers of at least 0, and differs where any of them does."""
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])


def seed_everything(seed: int) -> None:
    """Seed Python, NumPy and torch (every device) from here on, without a word."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed Python, NumPy and torch's CPU generator for a block; afterwards they go on where they were."""
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
    """Batches of shuffled epochs for one of several processes, which may start inside an epoch.

    Every step's global batch is the same whatever the number of processes: each takes its slice of it. The images that
    do not fill a last global batch are left out of the epoch, other ones in each, unless there is no full batch at all.

    Args:
        length: number of images.
        batch_size: images a process and step.
        seed: of the order and of every SampleIndex.
        rank: of this process.
        processes: how many share the epoch.
        epoch: to begin with.
        start: batches of that epoch to leave out, because they have been trained on.
    """

    def __init__(
        self, length: int, batch_size: int, seed: int, rank: int = 0, processes: int = 1, epoch: int = 0, start: int = 0
    ) -> None:
        self._length, self._batch_size, self._seed = length, batch_size, seed
        self._rank, self._processes = rank, processes
        self._epoch, self._start = epoch, start

    @property
    def sampler(self) -> TrainBatches:
        """Itself: Lightning tells the epoch to a batch sampler's sampler, not to the batch sampler."""
        return self

    def set_epoch(self, epoch: int) -> None:
        """The epoch that the next iteration is of; another one than before begins at its first batch."""
        if epoch != self._epoch:
            self._epoch, self._start = epoch, 0

    def __len__(self) -> int:
        """Batches of a whole epoch."""
        return max(self._length // (self._batch_size * self._processes), 1)

    def __iter__(self) -> Iterator[list[SampleIndex]]:
        generator = torch.Generator().manual_seed(seed_of(self._seed, self._epoch))
        order = torch.randperm(self._length, generator=generator).tolist()
        share = min(self._batch_size, self._length // self._processes)
        for batch in range(self._start, len(self)):
            first = (batch * self._processes + self._rank) * share
            yield [SampleIndex(i, seed_of(self._seed, self._epoch, i)) for i in order[first : first + share]]


class ShardBatches(TrainBatches):
    """TrainBatches for samples in shards, of which every process and worker reads its own, almost in order.

    An epoch's order is that of the shards, drawn anew for each. Cut into as many equal parts as there are processes,
    and these into one a worker (by samples, so at most the shards at the cuts are read by two), it is mixed inside each
    part: no sample moves further than `window` places. A worker of a DataLoader gets every n-th batch, which all come
    from one part. The samples of the last shards that do not fill a global batch are left out of the epoch.

    Unlike TrainBatches, what a batch holds depends on the number of processes and workers: a run that goes on inside an
    epoch needs the same ones.

    Args:
        lengths: samples of each shard.
        window: see above.
        num_workers: of the DataLoader; 0 is as good as 1.
        others: as TrainBatches has them.
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
    """(batches, share) samples in another order, in which none is further than `window` from where it was."""
    places = np.arange(lane.size) + generator.uniform(0, window, lane.size)
    return lane.ravel()[np.argsort(places)].reshape(lane.shape)


class EvaluationShare(Sampler[int]):
    """Every n-th image in order; PADDING fills up, so that all processes take the same number of steps."""

    def __init__(self, length: int, rank: int = 0, processes: int = 1) -> None:
        count = -(-length // processes)
        own = list(range(rank, length, processes))
        self._indices: Sequence[int] = own + [PADDING] * (count - len(own))

    def __len__(self) -> int:
        return len(self._indices)

    def __iter__(self) -> Iterator[int]:
        return iter(self._indices)


class ShardShare(EvaluationShare):
    """Consecutive samples for each process, and of these for each worker, so that they read different shards.

    PADDING fills up to the same number of whole batches for all processes. The order is not that of the data.
    """

    def __init__(self, length: int, batch_size: int, num_workers: int = 0, rank: int = 0, processes: int = 1) -> None:
        count = -(-length // processes)
        steps = -(-count // batch_size)
        own = np.full(steps * batch_size, PADDING)
        samples = np.arange(length)[rank * count : (rank + 1) * count]
        own[: len(samples)] = samples
        lanes = np.array_split(own.reshape(steps, batch_size), max(num_workers, 1))
        self._indices = [i for step in range(steps) for i in lanes[step % len(lanes)][step // len(lanes)].tolist()]
