"""WebDataset shards of a split: their paths, lengths and class names."""

from __future__ import annotations

import importlib.util
import json
import posixpath
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from timm.utils.misc import natural_key

from fastvit.data.classes import align_classes, shortened
from fastvit.data.remote import is_remote, open_binary
from fastvit.data.shards import Shard, ShardImages
from fastvit.data.split_names import SPLIT_NAMES, Split
from fastvit.errors import UserError
from fastvit.files import write_text

_INFO = ("_info.json", "info.json")


@dataclass(frozen=True)
class Info:
    """Contents of the info files beside shards: _info.json in timm's layout, and classes.txt.

    Attributes:
        lengths: number of samples by file name.
        splits: file names by split.
        classes: class names for the numbers in .cls files, from classes.txt or the list "classes" of _info.json; None
            if both are missing.
    """

    lengths: dict[str, int]
    splits: dict[str, list[str]]
    classes: tuple[str, ...] | None


def open_shards(source: str, split: Split, classes: Sequence[str] | None = None) -> ShardImages:
    """Open the shards of a split.

    Args:
        source: path or URL of a folder; or a brace pattern ("DIR/train-{0000..0015}.tar"), several patterns separated
            by "::". Shards belong to the split whose name is a word of their own name, else of their folder's name;
            shards without such a word are validation images.
        split: "train", or "test" for the validation images.
        classes: class names of a model, which the labels must follow; they also name the classes of shards without
            class names.

    Raises:
        UserError: no shards were found, or their lengths or class names are unknown.
    """
    pattern = ".tar" in source
    if pattern and importlib.util.find_spec("braceexpand") is None:
        raise UserError('brace patterns of shards need the package braceexpand: pip install "fastvit[wds]"')
    if pattern:
        paths = _of_split([path for part in source.split("::") for path in _expanded(part)], split, source)
        folder = posixpath.dirname(paths[0])
        info = read_info(folder)
    else:
        folder = source.rstrip("/")
        info = read_info(folder)
        paths = _in_folder(folder, info, split)
    lengths = [_length(path, folder, info) for path in paths]
    if info.classes is None and not classes:
        raise UserError(
            f"{folder} has no class names: put a file classes.txt beside the shards, with one name per line"
        )
    known, index = align_classes(info.classes or tuple(classes or ()), classes, source)
    return ShardImages(paths, lengths, known, index)


def write_info(folder: Path, classes: Sequence[str] | None = None) -> Path:
    """Count the samples of the shards in a folder, write _info.json beside them, and return its path.

    Raises:
        UserError: the folder contains no shards, or one is corrupt.
    """
    splits: dict[str, Any] = {}
    for split, names in SPLIT_NAMES.items():
        if paths := _of_split(_tars(folder), split):
            lengths = [len(Shard(path)) for path in paths]
            files = [posixpath.basename(path) for path in paths]
            splits[names[0]] = {
                "name": names[0],
                "filenames": files,
                "shard_lengths": lengths,
                "num_samples": sum(lengths),
            }
    if not splits:
        raise UserError(f"{folder} contains no .tar files")
    file = folder / _INFO[0]
    write_text(file, json.dumps({"splits": splits} | ({"classes": list(classes)} if classes else {}), indent=1))
    return file


def read_info(folder: str) -> Info:
    """Read the info files beside shards; the fields are empty if the files are missing.

    Raises:
        UserError: the info file does not have timm's layout.
    """
    text = next((text for name in _INFO if (text := _text(f"{folder}/{name}")) is not None), "{}")
    names = _text(f"{folder}/classes.txt")
    try:
        content = json.loads(text)
        splits = {name: list(split["filenames"]) for name, split in content.get("splits", {}).items()}
        lengths = {
            file: int(length)
            for split in content.get("splits", {}).values()
            for file, length in zip(split["filenames"], split["shard_lengths"], strict=True)
        }
        classes = names.split("\n") if names is not None else content.get("classes")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{folder}/{_INFO[0]} does not have timm's layout: {error!r}") from error
    kept = tuple(name.strip() for name in classes or () if name.strip())
    return Info(lengths, splits, kept or None)


def _text(path: str) -> str | None:
    """Return the text of a small file; None if the file is missing."""
    if not is_remote(path) and not Path(path).is_file():
        return None
    try:
        with open_binary(path) as file:
            return file.read().decode("utf-8")
    except UserError:
        return None


def _expanded(pattern: str) -> list[str]:
    from braceexpand import braceexpand

    return list(braceexpand(pattern))


def _tars(folder: Path) -> list[str]:
    return sorted((str(path) for path in folder.glob("*.tar")), key=natural_key)


def _in_folder(folder: str, info: Info, split: Split) -> list[str]:
    if info.splits:
        found = next((info.splits[name] for name in SPLIT_NAMES[split] if name in info.splits), None)
        if found is None:
            raise UserError(f"{folder} has no {split} split; it has {shortened(list(info.splits))}")
        return [f"{folder}/{name}" for name in found]
    if is_remote(folder):
        raise UserError(f"{folder} has no {_INFO[0]} that lists its shards: {_ADVICE}")
    return _of_split(_tars(Path(folder)), split, folder)


def _of_split(paths: Sequence[str], split: Split, where: str = "") -> list[str]:
    """Return the paths of a split, by the words of their name, else of their folder's name."""
    chosen = [path for path in paths if _split_of(path) == split]
    if not chosen and where:
        raise UserError(f"{where} has no .tar file with {' or '.join(SPLIT_NAMES[split])} in its name")
    return chosen


def _split_of(path: str) -> str:
    for name in (posixpath.basename(path), posixpath.basename(posixpath.dirname(path))):
        words = re.split(r"[^a-z]+", name.lower())
        for split, names in SPLIT_NAMES.items():
            if any(word in names for word in words):
                return split
    return "test"


def _length(path: str, folder: str, info: Info) -> int:
    if (length := info.lengths.get(path.removeprefix(f"{folder}/"))) is not None:
        return length
    if is_remote(path):
        raise UserError(f"the number of samples in {path} is unknown: {_ADVICE}")
    return len(Shard(path))


_ADVICE = "write an _info.json with fastvit.data.shard_lists.write_info(FOLDER) on the machine that stores the shards"
