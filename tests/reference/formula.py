"""Deterministic parameters and images: the same numbers on any machine, from names alone.

A tensor named `key` of shape `shape` under `seed` is filled, in C order, from the raw 64-bit stream of
numpy's Philox generator keyed with crc32(key) and the seed; each word w gives u = (w >> 11) / 2**53 in [0, 1).
How u becomes a value depends on the last parts of the ORIGINAL key name (see `kind`).  Everything is float64.
"""

import math
import zlib

import numpy as np


def uniform(key: str, shape: tuple[int, ...], seed: int) -> np.ndarray:
    """float64 array in [0, 1) of the given shape."""
    bits = np.random.Philox(key=[zlib.crc32(key.encode()), seed]).random_raw(max(1, math.prod(shape)))
    u = (np.atleast_1d(bits) >> np.uint64(11)).astype(np.float64) / 2.0**53
    return u.reshape(shape)


def kind(key: str, ndim: int) -> tuple[float, float] | None:
    """(low, high) of the uniform range for this tensor, or None where it depends on the fan-in."""
    if key.endswith("running_var"):
        return 0.5, 1.5
    if key.endswith("running_mean") or key.endswith("bias"):
        return -0.2, 0.2
    if "layer_scale" in key:
        return 0.05, 0.35
    if ndim == 1:  # the weight of a BatchNorm
        return 0.5, 1.5
    return None


def tensor(key: str, shape: tuple[int, ...], seed: int) -> np.ndarray:
    """The float64 (int64 for `num_batches_tracked`) value of one state-dict entry."""
    if key.endswith("num_batches_tracked"):
        return np.zeros(shape, np.int64)
    u = uniform(key, shape, seed)
    span = kind(key, len(shape))
    if span is None:
        bound = math.sqrt(3.0 / math.prod(shape[1:]))
        span = -bound, bound
    return span[0] + (span[1] - span[0]) * u


def images(seed: int, batch: int, height: int, width: int) -> np.ndarray:
    """float64 images in [-1, 1), shape (batch, 3, height, width)."""
    return 2.0 * uniform("images", (batch, 3, height, width), seed) - 1.0
