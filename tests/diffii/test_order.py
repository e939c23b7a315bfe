"""The order of an epoch is a permutation of the rows, whatever its shape, and keeps together what lies together."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from diffii.dataset.order import Epoch, Order

SIZES = np.array([7, 0, 100, 30, 1, 62])
orders = st.builds(
    Order,
    seed=st.integers(0, 2**63 - 1),
    shuffle=st.booleans(),
    lanes=st.integers(1, 9),
    stripe=st.integers(1, 20),
    window=st.integers(1, 50),
)


def sequence(epoch: Epoch, start: int, stop: int) -> np.ndarray:
    parts = [epoch.positions(window)[part] for window, part in epoch.windows(start, stop)]
    return np.concatenate(parts) if parts else np.empty(0, np.int64)


@given(st.lists(st.integers(0, 40), min_size=1).filter(any), orders, st.integers(0, 5), st.data())
def test_every_row_once_however_it_is_cut(sizes: list[int], order: Order, number: int, data: st.DataObject) -> None:
    epoch, rows = Epoch(np.array(sizes), order, number), sum(sizes)
    whole = sequence(epoch, 0, rows)
    np.testing.assert_array_equal(np.sort(whole), np.arange(rows))
    cut = data.draw(st.integers(0, rows))
    np.testing.assert_array_equal(np.concatenate([sequence(epoch, 0, cut), sequence(epoch, cut, rows)]), whole)
    np.testing.assert_array_equal(sequence(epoch, rows, 2 * rows), whole, "beyond its end it begins again")
    np.testing.assert_array_equal(sequence(Epoch(np.array(sizes), order, number), 0, rows), whole)


def test_seeds_and_epochs_differ_and_repeat() -> None:
    def drawn(seed: int, epoch: int) -> bytes:
        return sequence(Epoch(SIZES, Order(seed, True, 2, 4, 20), epoch), 0, 200).tobytes()

    assert drawn(3, 1) == drawn(3, 1)
    assert len({drawn(3, 1), drawn(3, 2), drawn(4, 1)}) == 3


def test_without_shuffling_one_lane_is_the_data_set_itself() -> None:
    np.testing.assert_array_equal(sequence(Epoch(SIZES, Order(0, False, 1, 4, 20), 5), 0, 200), np.arange(200))


@pytest.mark.parametrize("shuffle", [True, False])
def test_lanes_take_turns_and_each_reads_its_windows_one_after_another(shuffle: bool) -> None:
    epoch = Epoch(SIZES, Order(1, shuffle, lanes=3, stripe=8, window=20), 0)
    turns = [[window for window, _ in epoch.windows(start, start + 8)] for start in range(0, 192, 8)]
    assert [lane for ((lane, _), *_) in turns] == [0, 1, 2] * 8
    for lane in range(3):
        numbers = [number for turn in turns for mine, number in turn if mine == lane]
        assert numbers == sorted(numbers) and numbers[-1] == 3
    assert [window for window, _ in epoch.windows(192, 200)] == [(3, 0)], "what is left over is a lane of its own"
    if shuffle:
        shards = np.searchsorted(np.cumsum(SIZES), epoch.positions((1, 1)), side="right")
        assert len(np.unique(shards)) <= 3, "a window lies in a few shards"
        assert (np.diff(epoch.positions((1, 1))) != 1).any()


def test_all_rows_come_first_and_last_alike() -> None:
    """Each row stands in the first tenth of an epoch in one of ten epochs."""
    first = np.zeros(200)
    for number in range(400):
        first[sequence(Epoch(SIZES, Order(0, True, 1, 10, 25), number), 0, 20)] += 1
    # 400 draws at about 0.1: the largest of 200 lies within five standard errors, and so does the least.
    assert first.min() > 40 - 5 * 6 and first.max() < 40 + 5 * 6
