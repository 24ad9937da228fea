"""`fastvit quickstart`: the complete workflow in minutes."""

from __future__ import annotations

from pathlib import Path

from fastvit.device import Device


def quickstart(
    data: str = "sample", out: Path = Path("runs/quickstart"), device: Device = "auto", epochs: int | None = None
) -> None:
    """Run the complete workflow in minutes: train, evaluate, fuse, export and time a model, and write a report.

    Args:
        data: "sample" (comes with the package), a folder of images or idx files, or torch/FashionMNIST.
        out: folder of the run.
        device: device to train on.
        epochs: number of training epochs; by default that of the recipe.
    """
    from fastvit.quickstart import quickstart as run

    run(data, out, device, epochs)
