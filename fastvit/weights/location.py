"""Find weights: a file, a folder, or the Hugging Face Hub. Needs no torch."""

from __future__ import annotations

import re
from pathlib import Path

from fastvit.errors import UserError
from fastvit.files import user_path
from fastvit.runs.files import BEST

PICKLES = (".pth", ".pt", ".bin", ".ckpt", ".tar")
SUFFIXES = (".safetensors", *PICKLES)


def hub_id(source: str | Path) -> str | None:
    """Return "owner/name" for a Hugging Face Hub id, else None; files and folders have precedence."""
    path = user_path(source)
    match = re.fullmatch(r"(hf[-_]hub:)?([\w.-]+/[\w.-]+)", str(source))
    if not match or path.exists() or path.suffix in SUFFIXES or (not match[1] and path.parent.is_dir()):
        return None
    return match[2]


def beside(checkpoint: str, ending: str) -> Path:
    """Return the default path of a file made from a checkpoint: beside it, or for the Hub in the current folder.

    Args:
        checkpoint: file, folder, or Hugging Face Hub id.
        ending: ending to append to the name without suffix, such as "-fused.safetensors".
    """
    repository = hub_id(checkpoint)
    path = Path(repository.partition("/")[2]) if repository else locate(checkpoint)
    name = path.name if repository else path.name.removesuffix(path.suffix).removesuffix(".pth")
    return path.with_name(name + ending)


def locate(source: str | Path) -> Path:
    """Return the path of a weights file; a file of the Hub is downloaded.

    Args:
        source: file, folder with a weights file (such as a run), or Hugging Face Hub id.

    Raises:
        UserError: no weights file was found, or a folder contains several.
    """
    path = user_path(source)
    if path.is_dir():
        return _in_directory(path)
    if path.exists():
        if path.suffix not in SUFFIXES:
            raise _not_weights(path)
        return path
    if repo := hub_id(source):
        from fastvit.weights.hub import download

        return download(repo)
    raise UserError(
        f"there is no file {source}; give a weights file, a folder with one, or a Hugging Face Hub id owner/name"
    )


def _not_weights(path: Path) -> UserError:
    """Return the error for a file with another suffix than those of weights."""
    from fastvit.data.images import IMAGE_SUFFIXES

    if path.suffix.lower() in IMAGE_SUFFIXES:
        return UserError(f"{path} is an image, not a checkpoint: give the checkpoint first, then the images")
    return UserError(
        f"{path} is not a weights file ({', '.join(SUFFIXES)}); use exported models with fastvit predict and "
        "fastvit eval"
    )


def _in_directory(path: Path) -> Path:
    for name in (BEST, "model.safetensors", "pytorch_model.bin"):
        if (path / name).exists():
            return path / name
    found = sorted(p for p in path.iterdir() if p.suffix in SUFFIXES)
    if not found:
        raise UserError(
            f"{path} does not contain weights (no {BEST} or other {SUFFIXES[0]} file): give another run or the path of "
            "a file"
        )
    if len(found) > 1:
        names = ", ".join(p.name for p in found[:5])
        raise UserError(f"{path} contains {len(found)} weights files ({names}): give the path of one")
    return found[0]
