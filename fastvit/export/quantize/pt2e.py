"""int8 for ExecuTorch's XNNPACK, with PyTorch 2 export quantization (pt2e, in torchao)."""

from __future__ import annotations

import numpy as np
import torch

from fastvit.export.quantize.calibration import batches, required


def quantize(
    exported: torch.export.ExportedProgram, calibration: np.ndarray | None, batch: int | None = None
) -> torch.export.ExportedProgram:
    """Return a program in int8: symmetric per-channel weights, activations with a zero point.

    The program must not have a batch norm before attention, which would be folded wrongly; those of `fastvit.export`
    have none.

    Args:
        exported: float program with one input.
        calibration: (N, C, H, W) calibration images, of the kind that the program takes.
        batch: batch size; None for a dynamic one.

    Raises:
        UserError: there are no calibration images.
    """
    images = required(calibration)
    from executorch.backends.xnnpack.quantizer.xnnpack_quantizer import (
        XNNPACKQuantizer,
        get_symmetric_quantization_config,
    )
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

    quantizer = XNNPACKQuantizer().set_global(get_symmetric_quantization_config(is_per_channel=True))
    prepared = prepare_pt2e(exported.module(), quantizer)
    with torch.no_grad():
        for part in batches(images, batch):
            prepared(torch.from_numpy(part))
        quantized = convert_pt2e(prepared)
        example = torch.from_numpy(images[: batch or 2])
        return torch.export.export(quantized, (example,))
