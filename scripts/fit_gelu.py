"""Find the coefficients of fastvit/kernels/inference/gelu.py, and say how good they are.

    python scripts/fit_gelu.py --degree 5

The polynomial is the one whose largest error, in units in the last place of the float16 output, is least.
"""

from __future__ import annotations

import argparse

import numpy as np
from scipy.optimize import linprog
from scipy.special import log_ndtr, ndtr


def fit(degree: int, cut: float, points: int = 6000) -> tuple[np.ndarray, float]:
    """Coefficients of log2(Phi(-t)) on (0, cut], the lowest first, and the largest error in float16 units."""
    t = np.linspace(1e-3, cut, points)
    reference = log_ndtr(-t) / np.log(2)
    output = t * ndtr(-t)
    unit = np.maximum(2.0 ** (np.floor(np.log2(output)) - 10), 2.0**-24)
    allowed = (unit / output / np.log(2))[:, None]
    powers = t[:, None] ** np.arange(degree + 1) / allowed
    worst = -np.ones((points, 1))
    bounds = [(None, None)] * (degree + 1) + [(0, None)]
    found = linprog(
        [0] * (degree + 1) + [1],
        A_ub=np.block([[powers, worst], [-powers, worst]]),
        b_ub=np.concatenate([reference, -reference]) / np.concatenate([allowed, allowed])[:, 0],
        bounds=bounds,
        method="highs",
    )
    return found.x[:-1], float(found.x[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--degree", type=int, default=5)
    parser.add_argument("--cut", type=float, default=5.9)
    options = parser.parse_args()
    coefficients, worst = fit(options.degree, options.cut)
    print("COEFFICIENTS =", tuple(float(f"{value:.9g}") for value in coefficients))
    print(f"largest error: {worst:.3f} units in the last place of a float16")


if __name__ == "__main__":
    main()
