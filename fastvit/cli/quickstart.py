"""`fastvit quickstart`: the whole job in minutes."""

from __future__ import annotations

from pathlib import Path

from fastvit.device import Device


def quickstart(
    data: str = "sample", out: Path = Path("runs/quickstart"), device: Device = "auto", epochs: int | None = None
) -> None:
    """The whole job in minutes: train, evaluate, fuse, prove, export, time, and write a report.

    Args:
        data: "sample", a folder of images or idx files, or torch/FashionMNIST.
        out: folder of the run.
        device: where to train.
        epochs: passes over the training images; by default the recipe's.
    """
    from fastvit.quickstart import quickstart as run

    run(data, out, device, epochs)
