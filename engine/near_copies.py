"""Near-copies: which rows show what an accepted row or a real image of their class shows already.

    N  rows to decide   M  rows of an index   64  both the bits of a hash and the dimensions of an embedding

A near-copy is *proposed* by its embedding or by its perceptual hash and *confirmed* by its embedding: at a squared
distance of at most `alone`, or of at most `with_hash` when the hashes differ in at most `hash_radius` bits. The hash
never decides by itself, because pHash calls half of all boots copies of one another.

Decisions are a pure function of plan order: each row is compared with the real images and with the rows accepted
before it, in earlier chunks or its own. How the rows are cut into calls changes nothing, and an index is as good when
rebuilt from the stored signatures of accepted rows. Everything compared is an integer: embeddings are int8 within
+-63, their products are summed in float32 below 2^24, which is exact in any order on any machine.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from diffii.signatures import DIMENSIONS, LIMIT, Signatures

NEAR_COPY = "near-copy"
NEAR_REAL = "near-real"
"""Reasons: it shows what an earlier synthetic row shows; what a real training image shows."""

FARTHEST = DIMENSIONS * (2 * LIMIT) ** 2
"""The largest squared distance there is."""
_QUERIES, _BLOCK = 256, 2048
"""A product of this size (2 MiB) stays in the cache of a core while its rows are searched."""


@dataclass(frozen=True, slots=True)
class Threshold:
    """Squared distances of quantised embeddings, inclusive: `alone`, and `with_hash` for rows whose hashes agree."""

    alone: int
    with_hash: int

    def __post_init__(self) -> None:
        # -1 calls nothing a copy, not even a row that is identical.
        if not (-1 <= self.alone <= FARTHEST and -1 <= self.with_hash <= FARTHEST):
            raise ValueError(f"thresholds are squared distances of -1 to {FARTHEST}, got {self}")

    @property
    def widest(self) -> int:
        return max(self.alone, self.with_hash)


class NearCopies:
    """The index of one data set, by class: real images and accepted rows. `thresholds` has one entry per class."""

    def __init__(self, thresholds: Sequence[Threshold], hash_radius: int, real: Signatures) -> None:
        if not 0 <= hash_radius <= DIMENSIONS:
            raise ValueError(f"a hash radius is 0 to {DIMENSIONS} bits, got {hash_radius}")
        self._thresholds, self._radius = list(thresholds), hash_radius
        self._real: dict[int, _Index] = {}
        self._accepted: dict[int, _Index] = {}
        self._add(self._real, real)

    def add(self, accepted: Signatures) -> None:
        """Put rows that are accepted already into the index, in any order: for a run that goes on."""
        self._add(self._accepted, accepted)

    def decide(self, rows: Signatures) -> list[str | None]:
        """A reason per row, or None for a row that is accepted, which joins the index. Rows are in plan order.

        Raises ValueError for a label without a threshold.
        """
        reasons: list[str | None] = [None] * len(rows)
        for label in np.unique(rows.labels):
            threshold = self._threshold(int(label))
            places = np.flatnonzero(rows.labels == label)
            # In parts, so that what a part is compared with within itself stays small.
            for start in range(0, len(places), _QUERIES):
                part = places[start : start + _QUERIES]
                self._decide_class(int(label), threshold, rows.take(part), part, reasons)
        return reasons

    def _decide_class(
        self, label: int, threshold: Threshold, rows: Signatures, places: np.ndarray, reasons: list[str | None]
    ) -> None:
        accepted = self._accepted.setdefault(label, _Index())
        open_rows = np.arange(len(rows))
        for index, reason in ((self._real.get(label), NEAR_REAL), (accepted, NEAR_COPY)):
            if index is None:
                continue
            matches = index.first_match(rows.take(open_rows), threshold, self._radius)
            for row in open_rows[matches >= 0]:
                reasons[places[row]] = reason
            open_rows = open_rows[matches < 0]
        rows = rows.take(open_rows)
        near = _near_each_other(rows, threshold, self._radius)
        keep = np.zeros(len(rows), dtype=bool)
        for row in range(len(rows)):
            keep[row] = not (near[row, :row] & keep[:row]).any()
            if not keep[row]:
                reasons[places[open_rows[row]]] = NEAR_COPY
        accepted.add(rows.take(np.flatnonzero(keep)))

    def _add(self, indices: dict[int, _Index], rows: Signatures) -> None:
        for label in np.unique(rows.labels):
            self._threshold(int(label))
            indices.setdefault(int(label), _Index()).add(rows.take(np.flatnonzero(rows.labels == label)))

    def _threshold(self, label: int) -> Threshold:
        if not 0 <= label < len(self._thresholds):
            raise ValueError(f"label {label} has no threshold; there are {len(self._thresholds)} classes")
        return self._thresholds[label]


def leaks(rows: Signatures, heldout: Signatures, threshold: Threshold, hash_radius: int) -> np.ndarray:
    """For each row the first held-out image it is a near-copy of, whatever its class, or -1: int64 (N,).

    A report (`dedup.holdout`), not a reason: what to do about a leak is the user's decision.
    """
    index = _Index()
    index.add(heldout)
    return index.first_match(rows, threshold, hash_radius)


class _Index:
    """Hashes and embeddings that only grow; room doubles, so that adding row by row costs no more than once."""

    def __init__(self) -> None:
        self.count = 0
        self._hashes = np.empty(0, dtype=np.uint64)
        # int8, not float32: a class of 10^5 rows takes 7 MB, and reading them is what a comparison costs.
        self._embeddings = np.empty((0, DIMENSIONS), dtype=np.int8)
        self._norms = np.empty(0, dtype=np.float32)

    def add(self, rows: Signatures) -> None:
        stop = self.count + len(rows)
        if stop > len(self._hashes):
            room = max(2 * len(self._hashes), stop, 64)
            self._hashes = _grown(self._hashes, self.count, room)
            self._embeddings = _grown(self._embeddings, self.count, room)
            self._norms = _grown(self._norms, self.count, room)
        self._hashes[self.count : stop] = rows.hashes
        self._embeddings[self.count : stop] = rows.embeddings
        self._norms[self.count : stop] = _square(rows.embeddings)
        self.count = stop

    def first_match(self, rows: Signatures, threshold: Threshold, radius: int) -> np.ndarray:
        """For each row the lowest number of an indexed row that it is a near-copy of, or -1: int64 (N,)."""
        found = np.full(len(rows), -1, dtype=np.int64)
        if threshold.widest < 0:
            return found
        for start in range(0, len(rows), _QUERIES):
            part = slice(start, start + _QUERIES)
            self._search(rows.hashes[part], rows.embeddings[part], threshold, radius, found[part])
        return found

    def _search(
        self, hashes: np.ndarray, embeddings: np.ndarray, threshold: Threshold, radius: int, found: np.ndarray
    ) -> None:
        query, squares = _query(embeddings), _square(embeddings)
        # |q - m|^2 <= t is written 2 q.m - |m|^2 >= |q|^2 - t, so that one product and one maximum answer it.
        enough = squares - np.float32(threshold.widest)
        block = np.empty((_BLOCK, DIMENSIONS + 1), dtype=np.float32)
        for start in range(0, self.count, _BLOCK):
            stop = min(start + _BLOCK, self.count)
            block[: stop - start, :DIMENSIONS] = self._embeddings[start:stop]
            block[: stop - start, DIMENSIONS] = self._norms[start:stop]
            scores = query @ block[: stop - start].T
            for row in np.flatnonzero((scores.max(axis=1) >= enough) & (found < 0)):
                close = np.flatnonzero(scores[row] >= enough[row])
                distances = squares[row] - scores[row, close]
                apart = _hamming(hashes[row], self._hashes[start + close])
                near = close[(distances <= threshold.alone) | ((distances <= threshold.with_hash) & (apart <= radius))]
                if len(near):
                    found[row] = start + near[0]


def _near_each_other(rows: Signatures, threshold: Threshold, radius: int) -> np.ndarray:
    """Whether two of the rows are near-copies: bool (N, N)."""
    squares = _square(rows.embeddings)
    block = np.concatenate([rows.embeddings.astype(np.float32), squares[:, None]], axis=1)
    distances = squares[:, None] - _query(rows.embeddings) @ block.T
    near = distances <= threshold.alone
    for row, other in zip(*np.nonzero((distances <= threshold.with_hash) & ~near), strict=True):
        near[row, other] = _hamming(rows.hashes[row], rows.hashes[other : other + 1])[0] <= radius
    return near


def _query(embeddings: np.ndarray) -> np.ndarray:
    """(N, 65): twice the embedding, then -1 for the squared norm that stands there in the index."""
    query = np.empty((len(embeddings), DIMENSIONS + 1), dtype=np.float32)
    query[:, :DIMENSIONS] = embeddings
    query[:, :DIMENSIONS] *= 2.0
    query[:, DIMENSIONS] = -1.0
    return query


def _square(embeddings: np.ndarray) -> np.ndarray:
    values = embeddings.astype(np.float32)
    return (values * values).sum(axis=1)


def _hamming(one: np.uint64 | np.ndarray, many: np.ndarray) -> np.ndarray:
    """Bits in which hashes differ: (M,)."""
    return np.unpackbits((many ^ one).view(np.uint8).reshape(-1, 8), axis=1).sum(axis=1)


def _grown(array: np.ndarray, count: int, room: int) -> np.ndarray:
    larger = np.empty((room, *array.shape[1:]), dtype=array.dtype)
    larger[:count] = array[:count]
    return larger
