"""KID: how far two sets are apart as distributions, without bias for few images (Binkowski et al., ICLR 2018)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from diffii.metrics.features import paired


@dataclass(frozen=True, slots=True)
class KernelDistance:
    """Mean and standard deviation over subsets of `size` rows from each side."""

    mean: float
    std: float
    """0 where a subset is all there is on both sides."""
    size: int


def polynomial_kernel(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """`(x . y / D + 1)^3`, (N, M): the kernel that KID is defined with."""
    return (x @ y.T / x.shape[1] + 1.0) ** 3


def squared_mmd(x: np.ndarray, y: np.ndarray) -> float:
    """The unbiased estimate of the squared maximum mean discrepancy (Gretton et al. 2012, eq. 3); may be negative.

    Raises ValueError when a side has fewer than two rows.
    """
    x, y = paired(x, y, rows=2)
    within = sum(_mean_of_others(polynomial_kernel(side, side)) for side in (x, y))
    return float(within - 2.0 * polynomial_kernel(x, y).mean())


def kernel_distance(
    real: np.ndarray, synthetic: np.ndarray, subsets: int = 100, size: int = 1000, seed: int = 0
) -> KernelDistance:
    """KID over `subsets` seeded draws of `size` rows without repetition, or as many as the smaller side has.

    About 0 when both come from one distribution, larger the further they are apart; the unit is the extractor's own,
    so that values compare only within one feature space. Raises ValueError when a side has fewer than two rows.
    """
    x, y = paired(real, synthetic, rows=2)
    size = min(size, len(x), len(y))
    if size == len(x) == len(y):
        return KernelDistance(squared_mmd(x, y), 0.0, size)
    rng = np.random.default_rng(seed)
    found = [
        squared_mmd(x[rng.permutation(len(x))[:size]], y[rng.permutation(len(y))[:size]])
        for _ in range(max(1, subsets))
    ]
    return KernelDistance(float(np.mean(found)), float(np.std(found)), size)


def _mean_of_others(kernel: np.ndarray) -> float:
    rows = len(kernel)
    return float((kernel.sum() - np.trace(kernel)) / (rows * (rows - 1)))
