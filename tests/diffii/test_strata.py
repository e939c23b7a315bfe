"""Pairs and angles of a class: spread out, and a longer sequence keeps its beginning by construction."""

from __future__ import annotations

import math
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from diffii import strata


@given(images=st.integers(2, 40), seed=st.integers(0, 2**63))
def test_every_pair_is_used_before_any_is_reused(images: int, seed: int) -> None:
    count = strata.pair_count(images)
    assert count == images * (images - 1) // 2
    for start in (0, count):
        pairs = {frozenset(strata.pair(images, start + k, seed)) for k in range(count)}
        assert len(pairs) == count
        assert all(len(pair) == 2 for pair in pairs)


@given(images=st.integers(3, 30), seed=st.integers(0, 2**63))
def test_images_are_parents_equally_often_from_the_start(images: int, seed: int) -> None:
    first = Counter(image for k in range(images) for image in strata.pair(images, k, seed))
    assert set(first.values()) == {2}


def test_a_single_image_is_its_own_pair() -> None:
    assert strata.pair(1, 17, 3) == (0, 0)
    with pytest.raises(ValueError, match="without images"):
        strata.pair(0, 0, 0)


@pytest.mark.parametrize("images", [1, 2, 3, 5, 7, 11])
def test_one_pairs_angles_keep_their_distance(images: int) -> None:
    # Golden steps: the k uses of one pair are at least 1 / (2.62 k) of a turn apart. Plain steps by the ordinal
    # would put the second use of a pair of an 11-image class 3 degrees beside the first.
    uses = 12
    count = 1 if images == 1 else strata.pair_count(images)
    for index in range(min(count, 20)):
        angles = sorted(strata.phi(images, index + k * count, seed=9) for k in range(uses))
        gaps = [b - a for a, b in zip(angles, [*angles[1:], angles[0] + 2 * math.pi], strict=True)]
        assert min(gaps) > 2 * math.pi / (2.7 * uses)


def test_angles_of_a_class_cover_the_circle_evenly() -> None:
    octants = Counter(int(strata.phi(5, k, seed=1) / (math.pi / 4)) for k in range(800))
    assert all(90 <= octants[k] <= 110 for k in range(8))


def test_each_suffix_comes_once_a_round_in_changing_order() -> None:
    rounds = [tuple(strata.choice(5, 5 * turn + k, seed=2) for k in range(5)) for turn in range(20)]
    assert all(sorted(order) == [0, 1, 2, 3, 4] for order in rounds)
    assert len(set(rounds)) > 10
