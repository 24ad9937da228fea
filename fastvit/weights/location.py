"""Where weights are: a file, a directory, the Hub. Needs no torch."""

from __future__ import annotations

import re
from pathlib import Path

from fastvit.errors import UserError
from fastvit.files import user_path
from fastvit.runs.files import BEST

PICKLES = (".pth", ".pt", ".bin", ".ckpt", ".tar")
SUFFIXES = (".safetensors", *PICKLES)


def hub_id(source: str | Path) -> str | None:
    """owner/name if the source means a repository on the Hub, else None: files and directories come first."""
    path = user_path(source)
    match = re.fullmatch(r"(hf[-_]hub:)?([\w.-]+/[\w.-]+)", str(source))
    if not match or path.exists() or path.suffix in SUFFIXES or (not match[1] and path.parent.is_dir()):
        return None
    return match[2]


def beside(checkpoint: str, ending: str) -> Path:
    """A name for what is made from a checkpoint: beside its file, or here for what comes from the Hub."""
    repository = hub_id(checkpoint)
    path = Path(repository.partition("/")[2]) if repository else locate(checkpoint)
    name = path.name if repository else path.name.removesuffix(path.suffix).removesuffix(".pth")
    return path.with_name(name + ending)


def locate(source: str | Path) -> Path:
    """The weights file that a path, a directory or a Hub id stands for.

    Raises:
        UserError: there is none.
    """
    path = user_path(source)
    if path.is_dir():
        return _in_directory(path)
    if path.exists():
        if path.suffix not in SUFFIXES:
            names = ", ".join(SUFFIXES)
            raise UserError(
                f"{path} is not a weights file, whose names end in {names} (an artifact can be used and evaluated, "
                "but not loaded)"
            )
        return path
    if repo := hub_id(source):
        from fastvit.weights.hub import download

        return download(repo)
    raise UserError(f"there is no file {source}; give a weights file, a directory with one, or a Hub id owner/name")


def _in_directory(path: Path) -> Path:
    for name in (BEST, "model.safetensors", "pytorch_model.bin"):
        if (path / name).exists():
            return path / name
    found = sorted(p for p in path.iterdir() if p.suffix in SUFFIXES)
    if len(found) != 1:
        what = f"{len(found)} weights files ({', '.join(p.name for p in found[:5])})" if found else "no weights file"
        raise UserError(f"{path} holds {what}; name the file")
    return found[0]
