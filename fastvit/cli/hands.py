"""`fastvit hands`: make pictures of a hand."""

from __future__ import annotations

from pathlib import Path

from fastvit.console import print_line


def hands(
    folder: Path,
    images: int = 1000,
    size: int = 224,
    seed: int = 0,
    hand: str = "procedural",
    num_workers: int | None = None,
    overwrite: bool = False,
) -> None:
    """Make a small dataset for hand mesh regression: pictures of a rendered hand in FreiHAND's layout.

    Args:
        folder: to write pictures and annotations to; one that is empty or not there yet.
        images: pictures to train on; a fifth as many, up to 500, are made to evaluate on.
        size: side of a picture, in pixels.
        seed: of everything random; the same one gives the same pictures.
        hand: procedural (the package's own), mano (from ~/.cache/fastvit/mano), or a file: MANO's .pkl, or .npz.
        num_workers: processes that make pictures; by default one per core but one.
        overwrite: replace hands that the folder holds.
    """
    from fastvit.tasks.hand_mesh.hands_folder import write_hands

    written = write_hands(folder, images, size, seed, hand, num_workers, overwrite)
    counts = " and ".join(f"{count:,} {part}" for part, count in written.items())
    print_line(f"{folder}: {counts} pictures, {size}x{size} px")
