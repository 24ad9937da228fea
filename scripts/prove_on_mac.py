"""Prove a Core ML package on a Mac: the checkpoint in PyTorch and the package in Core ML, on the same real images.

Run: python scripts/prove_on_mac.py CHECKPOINT MODEL.mlpackage [--images FOLDER]. Needs pip install "fastvit[coreml]".
Takes what was exported on another machine, where Core ML cannot run; programs for ExecuTorch with Core ML inside
(.coreml.pte, pip install "fastvit[executorch]") as well. By default 16 images of the embedded sample. Prints the
difference between the two; fails if it exceeds the tolerance of the package's precision.
"""

from __future__ import annotations

import argparse
import sys
from itertools import islice
from pathlib import Path

import fastvit
from fastvit.data.images import find_images, read_image
from fastvit.data.load import open_images
from fastvit.errors import UserError
from fastvit.export.proof import TOLERANCES
from fastvit.runtime.artifact import open_artifact
from fastvit.tasks.table import find_task


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint")
    parser.add_argument("artifact", type=Path)
    parser.add_argument("--images", type=Path, help="a file, folder or glob pattern")
    parser.add_argument("--count", type=int, default=16, help="of images, at most")
    arguments = parser.parse_args()
    try:
        failures = run(arguments.checkpoint, arguments.artifact, arguments.images, arguments.count)
    except UserError as error:
        sys.exit(str(error))
    sys.exit("; ".join(failures) or None)


def run(checkpoint: str, path: Path, images: Path | None, count: int) -> list[str]:
    """Compare and print.

    Returns:
        What is wrong, in words; empty where nothing is.

    Raises:
        UserError: a file is missing or corrupt, or this machine is not a Mac.
    """
    artifact = open_artifact(path)
    model = fastvit.load(checkpoint, fastvit.FastViT)
    if images:
        pictures = [read_image(file) for file in islice(find_images([images]), count)]
    else:
        sample = open_images("sample", "test")
        pictures = [sample.image(i) for i in range(count)]
    proof = find_task(model.task).prove(model, artifact, pictures, None)
    print(f"{path}: {artifact.signature.precision}, {artifact.runtime}: {proof}")
    return TOLERANCES[artifact.signature.precision].missed(proof)


if __name__ == "__main__":
    main()
