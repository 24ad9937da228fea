"""Masks in COCO's run-length encoding (RLE). Needs no torch."""

from __future__ import annotations

from typing import Any

import numpy as np


def encode_masks(masks: np.ndarray) -> list[dict[str, Any]]:
    """Return (N, H, W) masks of 0 and 1 as COCO's compressed RLE, "size" (H, W) and "counts", for JSON."""
    from pycocotools import mask as coco_mask

    if not len(masks):
        return []
    runs = coco_mask.encode(np.asfortranarray(masks.transpose(1, 2, 0), np.uint8))
    return [{"size": list(run["size"]), "counts": run["counts"].decode("ascii")} for run in runs]
