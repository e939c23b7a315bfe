"""The order of an epoch: every row once, shuffled so that a bucket is still read shard by shard.

The shards are shuffled whole and laid in a ring, which begins anywhere. That line of rows is cut into lanes of one
length, which are read side by side, and each lane into windows, whose rows are shuffled among themselves: whoever reads
a lane holds one window at a time. The lanes take turns, a stripe of rows each; what is left when no full turn is
possible comes last, as a lane of its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from diffii.hashing import seed64

Window = tuple[int, int]
"""(lane, number of the window in it)."""


@dataclass(frozen=True, slots=True)
class Order:
    """Everything that the order of an epoch follows from, beside the data set and the epoch's number."""

    seed: int
    shuffle: bool
    lanes: int
    stripe: int
    window: int


class Epoch:
    """One epoch over shards of `sizes` rows, int64 (shards,): a sequence of the positions 0 ... N - 1, without end.

    Place g of the sequence holds the same position as place g + N.
    """

    def __init__(self, sizes: np.ndarray, order: Order, epoch: int) -> None:
        self._order, self._epoch = order, epoch
        self._length = int(sizes.sum())
        shards, self._turn = np.arange(len(sizes)), 0
        if order.shuffle:
            draw = self._draw("shards")
            shards = draw.permutation(shards)
            # Otherwise the end of a large shard would never come early in an epoch.
            self._turn = int(draw.integers(max(1, self._length)))
        self._ends = np.cumsum(sizes[shards])
        # Where a place of the line lies in the data set is a matter of its shard alone.
        self._shifts = (np.cumsum(sizes) - sizes)[shards] - (self._ends - sizes[shards])
        self._lane = self._length // (order.lanes * order.stripe) * order.stripe

    def __len__(self) -> int:
        return self._length

    def windows(self, start: int, stop: int) -> Iterator[tuple[Window, slice]]:
        """The windows that places [start, stop) lie in, in order, with the rows of each."""
        while start < stop:
            lane, within, together = self._find(start % self._length)
            number, row = divmod(within, self._order.window)
            count = min(stop - start, together, self._order.window - row)
            yield (lane, number), slice(row, row + count)
            start += count

    def positions(self, window: Window) -> np.ndarray:
        """The positions in a window, in the order in which they are given out: int64 (rows,)."""
        lane, number = window
        first, size = lane * self._lane, self._order.window
        last = first + self._lane if lane < self._order.lanes else self._length
        places = np.arange(first + number * size, min(first + (number + 1) * size, last))
        if self._order.shuffle:
            places = self._draw("window", lane, number).permutation(places)
        places = (places + self._turn) % self._length
        return places + self._shifts[np.searchsorted(self._ends, places, side="right")]

    def _find(self, place: int) -> tuple[int, int, int]:
        """(lane, place in it, places from there on that lie together) of a place of the sequence."""
        lanes, stripe = self._order.lanes, self._order.stripe
        if place >= lanes * self._lane:
            return lanes, place - lanes * self._lane, self._length - place
        turn, within = divmod(place, stripe)
        return turn % lanes, turn // lanes * stripe + within, stripe - within

    def _draw(self, *what: str | int) -> np.random.Generator:
        return np.random.Generator(np.random.Philox(seed64(self._order.seed, "epoch", self._epoch, *what)))
