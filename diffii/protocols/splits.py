"""Which images of an archive a task trains on: pure functions of labels and a seed.

Each class is shuffled by the seed and its own label. So a class's draw does not depend on the other classes, and ten
shots are five shots and five more.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def shuffled_classes(labels: Sequence[int], classes: int, seed: int) -> list[np.ndarray]:
    """Per class its rows in the seed's order. Raises ValueError for a label outside the classes."""
    found = np.asarray(labels, dtype=np.int64)
    if len(found) and not 0 <= found.min() <= found.max() < classes:
        raise ValueError(f"labels are 0 to {classes - 1}")
    rngs = (np.random.default_rng([seed, label]) for label in range(classes))
    return [rng.permutation(np.flatnonzero(found == label)) for label, rng in enumerate(rngs)]


def long_tail_counts(sizes: Sequence[int], imbalance: int) -> list[int]:
    """Training images per class for a long tail with a given imbalance factor (10, 20, 50 or 100).

    Classes are ranked by size, the largest first and equal ones in the order of labels; with C classes of mean size m,
    `n = max(int(m * (1 / imbalance)^(rank / (C - 2))), 1)`, never more than a class has. On CUB's 200 classes of
    5994 images m is 29.97, and at 100 exactly 83 classes hold one image (method.md section 2; the rule is Diff-Mix's).
    Raises ValueError for fewer than three classes, an empty class, or a factor below 1.
    """
    if len(sizes) < 3 or min(sizes) < 1 or imbalance < 1:
        raise ValueError(f"a long tail needs three classes with images and a factor of 1 or more, got {imbalance}")
    head = sum(sizes) / len(sizes)
    counts = [0] * len(sizes)
    for rank, label in enumerate(sorted(range(len(sizes)), key=lambda label: -sizes[label])):
        wanted = int(head * (1 / imbalance) ** (rank / (len(sizes) - 2)))
        counts[label] = min(sizes[label], max(wanted, 1))
    return counts


def partition(counts: Sequence[int], above: int, below: int) -> dict[str, tuple[int, ...]]:
    """Labels by training images: `many` has more than `above`, `few` fewer than `below`, `medium` what lies between."""
    labels = range(len(counts))
    return {
        "many": tuple(label for label in labels if counts[label] > above),
        "medium": tuple(label for label in labels if below <= counts[label] <= above),
        "few": tuple(label for label in labels if counts[label] < below),
    }
