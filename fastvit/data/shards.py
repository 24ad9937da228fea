"""Images in WebDataset shards (tar files), from a disk or over HTTP."""

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

# Largest distance, in samples, by which shuffling moves a sample, besides the shuffled order of the shards.
WINDOW = 2048
# Path up to the first dot of the file name, and the rest: files that share the first part are one sample.
_PARTS = re.compile(r"^((?:.*/)?[^./][^/.]*)\.([^/]+)$")


class Shard:
    """Open shard, with the positions of each sample's image and class in the tar file.

    Args:
        path: path or HTTP URL of the tar file.

    Raises:
        UserError: the file cannot be read, is corrupt or truncated, or has a sample without an image or a class.
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
            raise UserError(f"{path} is corrupt or not a tar file: {error}") from error
        self.keys = list(samples)
        self._positions = [self._pair(key, files) for key, files in samples.items()]

    def __len__(self) -> int:
        return len(self.keys)

    def image(self, index: int) -> bytes:
        """Return the content of a sample's image file."""
        return self._read(*self._positions[index][0])

    def label(self, index: int) -> int:
        """Return the number in a sample's .cls file.

        Raises:
            UserError: the file does not contain a number.
        """
        text = self._read(*self._positions[index][1])
        if not text.strip().isdigit():
            raise UserError(
                f"{self._path}: {self.keys[index]}.cls must contain a class number, but contains {text[:20]!r}"
            )
        return int(text)

    def _pair(self, key: str, files: dict[str, tuple[int, int]]) -> tuple[tuple[int, int], tuple[int, int]]:
        image = next((position for ending, position in files.items() if f".{ending}" in IMAGE_SUFFIXES), None)
        if image is None or "cls" not in files:
            raise UserError(
                f"{self._path}: the sample {key} needs an image and a .cls file, but has {', '.join(files)}"
            )
        return image, files["cls"]

    def _read(self, offset: int, size: int) -> bytes:
        # Not seek and read: forked processes share one position in the file.
        return os.pread(self._file.fileno(), size, offset)


class ShardImages:
    """Labeled images of several shards, in the order of the shards.

    timm's reader and webdataset's pipelines are not used: they stream, and give all processes equal shares by repeating
    or dropping samples. Here a sample has an index, like the image of a folder, and
    `fastvit.data.sampling.ShardBatches` assigns the indices to workers: every sample is used once per epoch for any
    number of shards, workers and processes, and a resumed run skips samples without decoding them. So the length of
    every shard must be known. A local shard is read in place, a remote one is downloaded to a temporary file; a process
    keeps the latest few shards open.

    Args:
        paths: paths or HTTP URLs of the shards.
        lengths: number of samples in each shard.
        classes: class names.
        index: label for each number in a .cls file.
    """

    def __init__(
        self, paths: Sequence[str], lengths: Sequence[int], classes: Sequence[str], index: Sequence[int]
    ) -> None:
        self.paths, self.lengths = tuple(paths), tuple(lengths)
        self.classes = tuple(classes)
        self._index = index
        self._ends = np.cumsum(self.lengths)
        # The shards that a shuffling window can cover, and one at either end.
        self._keep = 2 + WINDOW * len(self.paths) // max(len(self), 1)
        self._open: OrderedDict[int, Shard] = OrderedDict()

    def __len__(self) -> int:
        return int(self._ends[-1])

    @property
    def labels(self) -> Sequence[int]:
        """Class index of each sample, read on access."""
        return _Labels(self)

    def image(self, index: int) -> Image.Image:
        """Decode an image as RGB."""
        shard, position = self._find(index)
        return read_image(shard.image(position), self.name(index))

    def label(self, index: int) -> int:
        """Return the class index of a sample.

        Raises:
            UserError: the number in its .cls file has no class name.
        """
        shard, position = self._find(index)
        number = shard.label(position)
        if number >= len(self._index):
            raise UserError(
                f"{self.name(index)} has the class number {number}, but there are only {len(self._index)} class names"
            )
        return self._index[number]

    def name(self, index: int) -> str:
        """Return the path of the shard, "/", and the key of the sample."""
        shard, position = self._find(index)
        return f"{self.paths[self._number(index)]}/{shard.keys[position]}"

    def _number(self, index: int) -> int:
        return int(np.searchsorted(self._ends, index, side="right"))

    def _find(self, index: int) -> tuple[Shard, int]:
        """Return the open shard of a sample, and the index of the sample in it."""
        if not 0 <= index < len(self):
            raise IndexError(index)
        number = self._number(index)
        if number not in self._open:
            self._open[number] = shard = Shard(self.paths[number])
            if len(shard) != self.lengths[number]:
                raise UserError(f"{self.paths[number]} has {len(shard)} samples, expected {self.lengths[number]}")
            if len(self._open) > self._keep:
                self._open.popitem(last=False)
        self._open.move_to_end(number)
        return self._open[number], index - int(self._ends[number]) + self.lengths[number]

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_open": OrderedDict()}  # each process opens the shards itself


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
