"""Options that apply to checkpoints only: for artifacts they are errors, not ignored."""

from __future__ import annotations

from fastvit.arguments import refuse_given
from fastvit.runtime.artifact import is_artifact


def refuse_device(source: str, device: str, no_kernels: bool = False) -> None:
    """Refuse the options for a GPU if the model is an artifact: artifacts run on the CPU.

    Args:
        source: checkpoint or artifact.
        device: value of --device.
        no_kernels: value of --no-kernels.

    Raises:
        UserError: the model is an artifact, and one of the options is given.
    """
    if is_artifact(source):
        gpu = None if device in ("auto", "cpu") else device
        reason = f"is for checkpoints, which run in PyTorch; {source} is an artifact, which runs on the CPU"
        refuse_given(reason, device=gpu, no_kernels=no_kernels)
