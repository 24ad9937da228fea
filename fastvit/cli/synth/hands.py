"""`fastvit synth hands`: create synthetic images of hands."""

from __future__ import annotations

from pathlib import Path

from fastvit.console import print_line


def synth_hands(
    folder: Path,
    images: int = 1000,
    size: int = 224,
    seed: int = 0,
    hand: str = "procedural",
    num_workers: int | None = None,
    overwrite: bool = False,
) -> None:
    """Create a synthetic dataset for hand mesh regression: rendered hands in the layout of FreiHAND.

    Args:
        folder: folder to write images and annotations to; it must be empty or not exist.
        images: number of training images; a fifth as many evaluation images, at most 500, are added.
        size: height and width of an image, in pixels.
        seed: random seed; the same seed gives the same images.
        hand: hand model: procedural (built in), mano (from ~/.cache/fastvit/mano), or a file (MANO's .pkl, or .npz).
        num_workers: number of processes that render images; by default the number of cores minus one.
        overwrite: replace the synthetic hands in the folder.
    """
    from fastvit.tasks.hand_mesh.synthetic_folder import write_hands

    written = write_hands(folder, images, size, seed, hand, num_workers, overwrite)
    counts = " and ".join(f"{count:,} {part}" for part, count in written.items())
    print_line(f"{folder}: {counts} images, {size}x{size} px")
