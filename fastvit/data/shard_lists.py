"""Finding the shards of a split, their lengths and their class names."""

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
    """What stands beside shards, in timm's layout, and class names.

    Attributes:
        lengths: samples by file name.
        splits: file names by split.
        classes: names of the numbers in .cls files, from the list "classes" or the lines of classes.txt; None if
            neither is there.
    """

    lengths: dict[str, int]
    splits: dict[str, list[str]]
    classes: tuple[str, ...] | None


def open_shards(source: str, split: Split, classes: Sequence[str] | None = None) -> ShardImages:
    """The shards of a split.

    Args:
        source: a folder or the address of one; or shards in braces ("DIR/train-{0000..0015}.tar"), several patterns
            with "::" between them. Shards belong to the split whose name is a word of theirs (or of their folder); ones
            without any such word are for evaluation.
        split: which.
        classes: of a model, which the labels are to follow; taken as the names of the numbers where shards come
            without names.

    Raises:
        UserError: there are no such shards, their lengths cannot be known, or there are no class names.
    """
    pattern = ".tar" in source
    if pattern and importlib.util.find_spec("braceexpand") is None:
        raise UserError('shards in braces need the package braceexpand: pip install "fastvit[wds]"')
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
        raise UserError(f"{folder} does not name its classes: put a file classes.txt beside the shards, a name a line")
    known, index = align_classes(info.classes or tuple(classes or ()), classes, source)
    return ShardImages(paths, lengths, known, index)


def write_info(folder: Path, classes: Sequence[str] | None = None) -> Path:
    """Count the samples of the shards in a folder, and write _info.json beside them.

    Raises:
        UserError: there are no shards, or one is damaged.
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
        raise UserError(f"there are no .tar files in {folder}")
    file = folder / _INFO[0]
    write_text(file, json.dumps({"splits": splits} | ({"classes": list(classes)} if classes else {}), indent=1))
    return file


def read_info(folder: str) -> Info:
    """What stands beside shards; empty where nothing does.

    Raises:
        UserError: the info file is no such thing.
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
        raise UserError(f"{folder}/{_INFO[0]} does not describe shards as timm has it: {error!r}") from error
    kept = tuple(name.strip() for name in classes or () if name.strip())
    return Info(lengths, splits, kept or None)


def _text(path: str) -> str | None:
    """Of a small file that may be missing."""
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
        raise UserError(f"{folder} has no {_INFO[0]} to say which shards there are: {_ADVICE}")
    return _of_split(_tars(Path(folder)), split, folder)


def _of_split(paths: Sequence[str], split: Split, where: str = "") -> list[str]:
    """Those of a split by the words of their name, else of their folder."""
    chosen = [path for path in paths if _split_of(path) == split]
    if not chosen and where:
        raise UserError(f"{where} names no .tar file with {' or '.join(SPLIT_NAMES[split])} in its name")
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
        raise UserError(f"it is not known how many samples {path} holds: {_ADVICE}")
    return len(Shard(path))


_ADVICE = "make an _info.json with fastvit.data.shard_lists.write_info(FOLDER) where the shards lie"
