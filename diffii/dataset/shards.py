"""The published shards of a log: Arrow columns, since a large data set has a hundred thousand of them."""

from __future__ import annotations

import bisect
import hashlib
from collections.abc import Iterator, Sequence
from typing import overload

import numpy as np
import pyarrow as pa

from diffii.dataset import log
from diffii.dataset.log_table import shard_of

COLUMNS = ["shard", "shard_rows", "shard_bytes", "shard_sha256", "sidecar", "sidecar_sha256"]


class Shards(Sequence[log.Shard]):
    """The published shards in the order of the log; Arrow columns for all but the newest."""

    def __init__(self) -> None:
        self._tables: list[pa.Table] = []
        self._starts: list[int] = []
        self._newest: list[log.Shard] = []
        self._hashes = hashlib.sha256()
        self._length = 0

    def append(self, shard: log.Shard) -> None:
        self._newest.append(shard)
        self._add_hashes([shard.sha256])

    def append_table(self, table: pa.Table) -> None:
        """Append all of a table with the `COLUMNS`."""
        if self._newest:  # a checkpoint was missing below this one
            rows = [(s.name, s.rows, s.bytes, s.sha256, s.sidecar, s.sidecar_sha256) for s in self._newest]
            columns = dict(zip(COLUMNS, map(list, zip(*rows, strict=True)), strict=True))
            self._starts.append(self._length - len(self._newest))
            self._tables.append(pa.table(columns))
            self._newest = []
        self._starts.append(self._length)
        self._tables.append(table.select(COLUMNS))
        self._add_hashes(table["shard_sha256"].to_pylist())

    def _add_hashes(self, hashes: list[str]) -> None:
        if hashes:
            self._hashes.update((("\n" if self._length else "") + "\n".join(hashes)).encode())
        self._length += len(hashes)

    def __len__(self) -> int:
        return self._length

    @overload
    def __getitem__(self, index: int) -> log.Shard: ...
    @overload
    def __getitem__(self, index: slice) -> list[log.Shard]: ...
    def __getitem__(self, index: int | slice) -> log.Shard | list[log.Shard]:
        if isinstance(index, slice):
            return [self[number] for number in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(f"shard {index} of {len(self)}")
        index %= len(self)
        singly = index - (len(self) - len(self._newest))
        if singly >= 0:
            return self._newest[singly]
        part = bisect.bisect_right(self._starts, index) - 1
        return _shards(self._tables[part].slice(index - self._starts[part], 1))[0]

    def __iter__(self) -> Iterator[log.Shard]:
        for table in self._tables:
            yield from _shards(table)
        yield from self._newest

    def ends(self) -> np.ndarray:
        """Rows up to and including each shard: int64 (shards,)."""
        sizes = [table["shard_rows"].to_numpy() for table in self._tables]
        sizes.append(np.array([shard.rows for shard in self._newest], dtype=np.int64))
        return np.cumsum(np.concatenate(sizes), dtype=np.int64)

    @property
    def digest(self) -> str:
        """SHA-256 over the shards' hashes, one a line, in the order of the log."""
        return self._hashes.hexdigest()


def _shards(table: pa.Table) -> list[log.Shard]:
    return [shard_of(row) for row in table.select(COLUMNS).to_pylist()]
