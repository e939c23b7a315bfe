"""What every metric begins with: a checked float64 matrix, its directions, its distances."""

from __future__ import annotations

import numpy as np
from scipy.spatial.distance import cdist


def checked(features: np.ndarray, rows: int = 1, what: str = "features") -> np.ndarray:
    """As float64 (N, D). Raises ValueError when it is no matrix, not finite, or has fewer than `rows` rows."""
    x = np.asarray(features, dtype=np.float64)
    if x.ndim != 2 or not x.shape[1]:
        raise ValueError(f"{what} are a matrix (N, D), got the shape {x.shape}")
    if len(x) < rows:
        raise ValueError(f"{what}: {rows} rows are needed, there are {len(x)}")
    if not np.isfinite(x).all():
        raise ValueError(f"{what} are not finite")
    return x


def paired(real: np.ndarray, synthetic: np.ndarray, rows: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Both, checked. Raises ValueError also when they come from different extractors."""
    x, y = checked(real, rows, "real features"), checked(synthetic, rows, "synthetic features")
    if x.shape[1] != y.shape[1]:
        raise ValueError(f"real features have {x.shape[1]} columns and synthetic ones {y.shape[1]}")
    return x, y


def directions(features: np.ndarray, what: str = "features") -> np.ndarray:
    """Rows of length 1. Raises ValueError for a row of zeros, which has no direction."""
    x = checked(features, what=what)
    norms = np.linalg.norm(x, axis=1, keepdims=True)
    if not (norms > 0).all():
        raise ValueError(f"{what}: row {int(np.argmin(norms))} is all zero")
    return x / norms


def distances(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Euclidean distances (N, M).

    From differences, not from a matrix product: equal rows are at distance 0 exactly, which a ball of radius 0 needs.
    """
    return cdist(x, y)


def neighbour_radii(within: np.ndarray, k: int) -> np.ndarray:
    """Distance of each row to its k-th nearest other row (N,), from the distances of a set to itself (N, N)."""
    if not 1 <= k < len(within):
        raise ValueError(f"the {k}. nearest neighbour among {len(within)} rows does not exist")
    others = within.copy()
    np.fill_diagonal(others, np.inf)
    return np.partition(others, k - 1, axis=1)[:, k - 1]
