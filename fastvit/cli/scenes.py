"""`fastvit scenes`: make scenes."""

from __future__ import annotations

from pathlib import Path

from fastvit.console import print_line


def scenes(folder: Path, images: int = 500, size: int = 128, seed: int = 0, overwrite: bool = False) -> None:
    """Make a small dataset for detection and segmentation, of the embedded sample.

    Args:
        folder: to write images, masks and COCO annotations to; one that is empty or not there yet.
        images: scenes to train on; a fifth as many are made to validate on.
        size: side of a scene, in pixels.
        seed: of everything random; the same one gives the same files.
        overwrite: replace scenes that the folder holds.
    """
    from fastvit.synthetic.scenes import write_scenes

    written = write_scenes(folder, images, size, seed, overwrite)
    counts = (f"{count:,} {split} scenes with {instances:,} items" for split, (count, instances) in written.items())
    print_line(f"{folder}: {', '.join(counts)}, {size}x{size} px")
