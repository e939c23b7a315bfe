"""How different the images of one set are from one another."""

from __future__ import annotations

import numpy as np

from diffii.metrics.features import directions


def vendi_score(features: np.ndarray) -> float:
    """The effective number of different images (Friedman and Dieng, TMLR 2023), from 1 to the number of rows.

    exp of the entropy of the eigenvalues of K / N, K the cosines: one image N times gives 1, N at right angles N.
    Raises ValueError for a row of zeros.
    """
    u = directions(features)
    # K = u u^T and u^T u have the same eigenvalues above zero; the smaller one is cheaper.
    gram = u @ u.T if len(u) <= u.shape[1] else u.T @ u
    weights = np.linalg.eigvalsh(gram / len(u))
    weights = weights[weights > 0]
    return float(np.exp(-np.sum(weights * np.log(weights))))


def mean_distance(features: np.ndarray) -> float:
    """Mean cosine distance, 1 - cosine, over all pairs of different rows: 0 for one repeated image, 1 at right angles.

    Raises ValueError when there are fewer than two rows, or for a row of zeros.
    """
    u = directions(features)
    rows = len(u)
    if rows < 2:
        raise ValueError("one image has no distance to another")
    total = u.sum(axis=0)
    return float(1.0 - (total @ total - rows) / (rows * (rows - 1)))
