"""`fastvit synth scenes`: create synthetic scenes."""

from __future__ import annotations

from pathlib import Path

from fastvit.console import print_line


def synth_scenes(folder: Path, images: int = 500, size: int = 128, seed: int = 0, overwrite: bool = False) -> None:
    """Create a synthetic dataset for detection and segmentation: scenes of Fashion-MNIST items.

    Args:
        folder: folder to write images, masks and COCO annotations to; it must be empty or not exist.
        images: number of training scenes; a fifth as many validation scenes are added.
        size: side of a scene, in pixels.
        seed: random seed; the same seed gives the same files.
        overwrite: replace the synthetic scenes in the folder.
    """
    from fastvit.synthetic.scenes import write_scenes

    written = write_scenes(folder, images, size, seed, overwrite)
    counts = (f"{count:,} {split} scenes with {instances:,} items" for split, (count, instances) in written.items())
    print_line(f"{folder}: {', '.join(counts)}, {size}x{size} px")
