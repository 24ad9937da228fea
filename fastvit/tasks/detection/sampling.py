"""Batches of images with similar aspect ratios."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch

from fastvit.data.sampling import SampleIndex, TrainBatches, seed_of


class GroupedBatches(TrainBatches):
    """TrainBatches whose global batches contain only wide or only tall images, which need less padding.

    Batches of both groups come in random order. Images that do not fill a group's last global batch are left out of the
    epoch, different ones in each epoch. If a group has too few images for one batch, there are no groups, as in
    TrainBatches, because its images would never be used.

    Args:
        sizes: (n, 2), height and width of each image, in pixels.
        batch_size: images per step and process.
        seed: seed of the order and the augmentation.
        rank: rank of this process.
        processes: number of processes.
        epoch: epoch to start with.
        start: number of batches of this epoch to skip.
    """

    def __init__(
        self,
        sizes: np.ndarray,
        batch_size: int,
        seed: int,
        rank: int = 0,
        processes: int = 1,
        epoch: int = 0,
        start: int = 0,
    ) -> None:
        super().__init__(len(sizes), batch_size, seed, rank, processes, epoch, start)
        self._tall = np.asarray(sizes[:, 0] > sizes[:, 1])
        count = int(self._tall.sum())
        groups = [size for size in (count, len(sizes) - count) if size]
        whole = batch_size * processes
        self._batches = sum(size // whole for size in groups) if min(groups, default=0) >= whole else None

    def __len__(self) -> int:
        """Return the number of batches of a complete epoch."""
        return super().__len__() if self._batches is None else self._batches

    def __iter__(self) -> Iterator[list[SampleIndex]]:
        if self._batches is None:
            yield from super().__iter__()
            return
        generator = torch.Generator().manual_seed(seed_of(self._seed, self._epoch))
        order = torch.randperm(self._length, generator=generator).numpy()
        whole = self._batch_size * self._processes
        groups = [order[self._tall[order] == tall] for tall in (False, True)]
        batches = np.concatenate([group[: len(group) // whole * whole].reshape(-1, whole) for group in groups])
        batches = batches[torch.randperm(len(batches), generator=generator).numpy()]
        share = slice(self._rank * self._batch_size, (self._rank + 1) * self._batch_size)
        for batch in batches[self._start :, share].tolist():
            yield [SampleIndex(i, seed_of(self._seed, self._epoch, i)) for i in batch]
