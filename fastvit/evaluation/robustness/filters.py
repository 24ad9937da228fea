"""Filters of the corruptions. Images are float32 (H, W, 3) or (H, W), in 0..1."""

from __future__ import annotations

import numpy as np
from scipy import ndimage, signal


def blurred(image: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """Convolve each channel with a kernel; the image is mirrored at its edges, about the last pixel.

    Args:
        image: (H, W, 3).
        kernel: (height, width), both odd; it is normalized to the sum 1.
    """
    margins = [(min(k // 2, n - 1), min(k // 2, n - 1)) for k, n in zip(kernel.shape, image.shape, strict=False)]
    cut = tuple(slice(k // 2 - m, k // 2 + m + 1) for k, (m, _) in zip(kernel.shape, margins, strict=True))
    padded = np.pad(image, [*margins, (0, 0)], mode="reflect")
    return signal.oaconvolve(padded, kernel[cut][..., None] / kernel[cut].sum(), mode="valid", axes=(0, 1))


def disk(radius: float) -> np.ndarray:
    """Return a disk whose edge decreases linearly over two pixels, so that it changes smoothly with the radius.

    Args:
        radius: radius in pixels.

    Returns:
        (side, side) with an odd side, in 0..1; it is not normalized.
    """
    reach = int(np.ceil(radius))
    y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    return np.clip((radius + 1 - np.hypot(x, y)) / 2, 0, 1).astype(np.float32)


def gaussian(image: np.ndarray, sigma: float) -> np.ndarray:
    """Blur an image with a Gaussian; the last pixel is repeated beyond the edges.

    Args:
        image: (H, W, 3).
        sigma: standard deviation of the Gaussian, in pixels.
    """
    return ndimage.gaussian_filter(image, sigma, mode="nearest", axes=(0, 1))


def motion_blurred(image: np.ndarray, radius: float, sigma: float, angle: float) -> np.ndarray:
    """Blur an image along a line, as the motion blur of ImageMagick does.

    Each pixel becomes the mean of the nearest pixels along a line that begins at it, weighted by half of a Gaussian.

    Args:
        image: (H, W) or (H, W, C).
        radius: half the number of averaged pixels.
        sigma: standard deviation of the Gaussian, in pixels.
        angle: angle of the line, in radians.
    """
    steps = np.arange(2 * int(np.ceil(radius)) + 1)
    weights = np.exp(-(steps**2) / (2 * sigma**2)).astype(np.float32)
    weights /= weights.sum()
    rows, columns = (np.ceil(steps * along - 0.5).astype(int) for along in (np.sin(angle), np.cos(angle)))
    height, width = image.shape[:2]
    margin = len(steps)
    padded = np.pad(image, [(margin, margin)] * 2 + [(0, 0)] * (image.ndim - 2), mode="edge")
    result = np.zeros_like(image)
    for row, column, weight in zip(rows + margin, columns + margin, weights, strict=True):
        result += weight * padded[row : row + height, column : column + width]
    return result


def zoomed(image: np.ndarray, factor: float) -> np.ndarray:
    """Enlarge the center of an image `factor` times with linear interpolation; the size of the image stays the same."""
    return _enlarged(_enlarged(image, factor, 0), factor, 1)


def _enlarged(image: np.ndarray, factor: float, axis: int) -> np.ndarray:
    size = image.shape[axis]
    kept = int(np.ceil(size / factor))
    full = max(round(kept * factor), size)
    places = (np.arange(size) + (full - size) // 2) * (kept - 1) / max(full - 1, 1)
    low = np.minimum(places.astype(int), max(kept - 2, 0))
    share = (places - low).astype(np.float32).reshape([-1 if a == axis else 1 for a in range(image.ndim)])
    first = (size - kept) // 2
    left, right = (np.take(image, np.minimum(first + low + i, size - 1), axis) for i in (0, 1))
    return left * (1 - share) + right * share


def displaced(image: np.ndarray, rows: np.ndarray, columns: np.ndarray, mode: str) -> np.ndarray:
    """Sample an image at other positions, with linear interpolation.

    Args:
        image: (H, W, 3).
        rows: (H, W) row in the image for each pixel of the result, in pixels.
        columns: (H, W) column in the image for each pixel of the result, in pixels.
        mode: values beyond the edges, as in `scipy.ndimage.map_coordinates`.
    """
    channels = [ndimage.map_coordinates(image[..., c], (rows, columns), order=1, mode=mode) for c in range(3)]
    return np.stack(channels, -1)


def random_affine(size: tuple[int, int], shift: float, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return positions for `displaced`: an affine map that moves three corners of a central square at random.

    Args:
        size: height and width of the image; the side of the square is two thirds of the shorter side.
        shift: largest displacement of a corner along each axis, in pixels.
        rng: random generator.

    Returns:
        Rows and columns, (H, W) each.
    """
    reach = min(size) // 3
    before = np.array(size) // 2 + reach * np.array([(1, 1), (-1, 1), (-1, -1)])
    after = before + rng.uniform(-shift, shift, before.shape)
    matrix = np.linalg.solve(np.column_stack([after, np.ones(3)]), before)
    y, x = np.mgrid[: size[0], : size[1]]
    rows, columns = (y * matrix[0, i] + x * matrix[1, i] + matrix[2, i] for i in (0, 1))
    return rows, columns


def plasma(size: int, decay: float, rng: np.random.Generator) -> np.ndarray:
    """Create a cloud texture (size, size) in 0..1 with the diamond-square algorithm; opposite edges match.

    Args:
        size: side in pixels, a power of two.
        decay: smoothness; at half the distance, the random changes are divided by its square.
        rng: random generator.
    """
    heights = np.zeros((size, size), np.float32)
    step, wobble = size, 1.0

    def around(total: np.ndarray) -> np.ndarray:
        return total / 4 + wobble * rng.uniform(-1, 1, total.shape)

    while step >= 2:
        half = step // 2
        corners = heights[::step, ::step]
        pairs = corners + np.roll(corners, -1, 0)
        centers = around(pairs + np.roll(pairs, -1, 1))
        heights[half::step, half::step] = centers
        heights[half::step, ::step] = around(pairs + centers + np.roll(centers, 1, 1))
        heights[::step, half::step] = around(corners + np.roll(corners, -1, 1) + centers + np.roll(centers, 1, 0))
        # The original scales both the interval of the changes and the changes, hence the square.
        step, wobble = half, wobble / decay**2
    heights -= heights.min()
    return heights / max(heights.max(), np.finfo(np.float32).tiny)
