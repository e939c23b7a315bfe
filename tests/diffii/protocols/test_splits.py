from __future__ import annotations

import numpy as np
import pytest

from diffii.protocols.splits import long_tail_counts, partition, shuffled_classes

CUB_SIZES = [30] * 194 + [29] * 6
"""CUB's training part: 5994 images of 200 classes."""


def test_cub_at_100_has_83_classes_of_one_image() -> None:
    assert sum(CUB_SIZES) == 5994
    counts = long_tail_counts(CUB_SIZES, 100)
    assert counts.count(1) == 83
    assert (max(counts), min(counts)) == (29, 1)


@pytest.mark.parametrize(("imbalance", "tail"), [(10, 2), (20, 1), (50, 1), (100, 1)])
def test_the_tail_of_cub_at_every_factor(imbalance: int, tail: int) -> None:
    counts = long_tail_counts(CUB_SIZES, imbalance)
    # By hand: rank 0 gets int(29.97), rank 199 int(29.97 * imbalance^(-199/198)) or one.
    assert counts[0] == 29
    assert counts[199] == tail == max(int(29.97 / imbalance ** (199 / 198)), 1)
    assert counts[99] == int(29.97 / imbalance**0.5)
    assert sorted(counts, reverse=True) == counts


def test_the_largest_class_comes_first_and_none_gives_more_than_it_has() -> None:
    counts = long_tail_counts([3, 90, 40, 40], 10)
    # Mean 43.25: ranks are labels 1, 2, 3, 0, exponents 0, 1/2, 1, 3/2.
    assert counts == [1, 43, 13, 4]
    assert long_tail_counts([1, 100, 1, 1], 1) == [1, 25, 1, 1]


@pytest.mark.parametrize("sizes", [[3, 3], [3, 0, 3]])
def test_what_has_no_tail_is_refused(sizes: list[int]) -> None:
    with pytest.raises(ValueError, match="three classes"):
        long_tail_counts(sizes, 10)


def test_partitions_by_hand() -> None:
    found = partition([29, 21, 20, 5, 4, 1], above=20, below=5)
    assert found == {"many": (0, 1), "medium": (2, 3), "few": (4, 5)}


def test_draws_follow_the_seed_and_the_class_alone() -> None:
    labels = [0, 1, 2] * 10
    first, again, other = (shuffled_classes(labels, 3, seed) for seed in (1, 1, 2))
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert any(not np.array_equal(a, b) for a, b in zip(first, other, strict=True))
    assert [sorted(order.tolist()) for order in first] == [list(range(k, 30, 3)) for k in range(3)]
    # Another class more leaves the first as it is.
    assert np.array_equal(shuffled_classes([*labels, 3], 4, 1)[0], first[0])
    with pytest.raises(ValueError, match="0 to 1"):
        shuffled_classes(labels, 2, 0)
