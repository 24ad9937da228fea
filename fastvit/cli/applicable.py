"""Options that apply to some models only; for others they are errors, not ignored."""

from __future__ import annotations

from fastvit.arguments import refuse_given
from fastvit.runtime.artifact import is_artifact


def refuse_device(source: str, device: str, no_kernels: bool = False) -> None:
    """See that an artifact is not asked to run on a GPU.

    Raises:
        UserError: it is.
    """
    if is_artifact(source):
        asked = None if device in ("auto", "cpu") else device
        reason = f"is for checkpoints, which PyTorch runs; {source} runs on the CPU"
        refuse_given(reason, device=asked, no_kernels=no_kernels)
