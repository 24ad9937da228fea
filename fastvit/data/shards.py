"""Images in shards: tar files in webdataset's form, from a disk or over HTTP."""

from __future__ import annotations

import os
import re
import tarfile
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, overload

import numpy as np
from PIL import Image

from fastvit.data.images import IMAGE_SUFFIXES, read_image
from fastvit.data.remote import open_binary
from fastvit.errors import UserError

# Samples of a lane that are mixed with each other, apart from the order of the shards.
WINDOW = 2048
# Directory and file name up to its first dot, and what follows: files that share the first part are one sample.
_PARTS = re.compile(r"^((?:.*/)?[^./][^/.]*)\.([^/]+)$")


class Shard:
    """An open shard: where in the tar file the image and the class of each sample lie.

    Raises:
        UserError: it cannot be had, is cut short, or has a sample without an image or a class.
    """

    def __init__(self, path: str) -> None:
        self._path, self._file = path, open_binary(path)
        samples: dict[str, dict[str, tuple[int, int]]] = {}
        try:
            with tarfile.open(fileobj=self._file, mode="r:") as members:
                for member in members:
                    parts = _PARTS.match(member.name)
                    if member.isfile() and parts:
                        samples.setdefault(parts[1], {})[parts[2].lower()] = member.offset_data, member.size
        except (tarfile.TarError, EOFError) as error:
            raise UserError(f"{path} is damaged or no tar file: {error}") from error
        self.keys = list(samples)
        self._places = [self._pair(key, files) for key, files in samples.items()]

    def __len__(self) -> int:
        return len(self.keys)

    def image(self, index: int) -> bytes:
        """The image file."""
        return self._read(*self._places[index][0])

    def label(self, index: int) -> int:
        """The number in the sample's .cls file."""
        text = self._read(*self._places[index][1])
        if not text.strip().isdigit():
            raise UserError(f"{self._path}: {self.keys[index]}.cls must hold a class number, it holds {text[:20]!r}")
        return int(text)

    def _pair(self, key: str, files: dict[str, tuple[int, int]]) -> tuple[tuple[int, int], tuple[int, int]]:
        image = next((place for ending, place in files.items() if f".{ending}" in IMAGE_SUFFIXES), None)
        if image is None or "cls" not in files:
            raise UserError(f"{self._path}: the sample {key} needs an image and a .cls file, it has {', '.join(files)}")
        return image, files["cls"]

    def _read(self, offset: int, size: int) -> bytes:
        # Not seek and read: forked processes share one position in the file.
        return os.pread(self._file.fileno(), size, offset)


class ShardImages:
    """The samples of several shards, in the order of the shards.

    Neither timm's reader nor webdataset's pipelines: they stream, each worker its own shards, and make the shares of
    processes equal by repeating samples or leaving some out. Here a sample has a number, as the image of a folder has,
    and a sampler decides who reads which (`fastvit.data.sampling.ShardBatches`): every sample once an epoch for any
    number of samples, shards, workers and processes, and a run that goes on skips what it has seen without decoding it.
    The price is that the length of every shard must be known. A shard that is asked for is opened whole: from a disk it
    is read in place, over HTTP it is fetched to a temporary file; a process keeps the latest few.

    Args:
        paths: of the shards; local, or http(s)://.
        lengths: samples in each.
        classes: names.
        index: class that each number in a .cls file stands for.
    """

    def __init__(
        self, paths: Sequence[str], lengths: Sequence[int], classes: Sequence[str], index: Sequence[int]
    ) -> None:
        self.paths, self.lengths = tuple(paths), tuple(lengths)
        self.classes = tuple(classes)
        self._index = index
        self._ends = np.cumsum(self.lengths)
        # What a window may touch, one that is being left and one that is being entered.
        self._keep = 2 + WINDOW * len(self.paths) // max(len(self), 1)
        self._open: OrderedDict[int, Shard] = OrderedDict()

    def __len__(self) -> int:
        return int(self._ends[-1])

    @property
    def labels(self) -> Sequence[int]:
        """The class of each sample, read when it is asked for."""
        return _Labels(self)

    def image(self, index: int) -> Image.Image:
        shard, place = self._find(index)
        return read_image(shard.image(place), self.name(index))

    def label(self, index: int) -> int:
        shard, place = self._find(index)
        number = shard.label(place)
        if number >= len(self._index):
            raise UserError(f"{self.name(index)} is of the class {number}, there are names for {len(self._index)}")
        return self._index[number]

    def name(self, index: int) -> str:
        shard, place = self._find(index)
        return f"{self.paths[self._number(index)]}/{shard.keys[place]}"

    def _number(self, index: int) -> int:
        return int(np.searchsorted(self._ends, index, side="right"))

    def _find(self, index: int) -> tuple[Shard, int]:
        """The shard of a sample, opened, and its place there."""
        if not 0 <= index < len(self):
            raise IndexError(index)
        number = self._number(index)
        if number not in self._open:
            self._open[number] = shard = Shard(self.paths[number])
            if len(shard) != self.lengths[number]:
                raise UserError(f"{self.paths[number]} has {len(shard)} samples, {self.lengths[number]} were announced")
            if len(self._open) > self._keep:
                self._open.popitem(last=False)
        self._open.move_to_end(number)
        return self._open[number], index - int(self._ends[number]) + self.lengths[number]

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_open": OrderedDict()}  # a process opens its own


class _Labels(Sequence[int]):
    def __init__(self, pictures: ShardImages) -> None:
        self._pictures = pictures

    def __len__(self) -> int:
        return len(self._pictures)

    @overload
    def __getitem__(self, key: int) -> int: ...

    @overload
    def __getitem__(self, key: slice) -> list[int]: ...

    def __getitem__(self, key: int | slice) -> int | list[int]:
        if isinstance(key, slice):
            return [self._pictures.label(i) for i in range(*key.indices(len(self)))]
        return self._pictures.label(key)
