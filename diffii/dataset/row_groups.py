"""Rows of published shards by number. Each read takes a whole row group, and the last few of them stay in memory."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from diffii.dataset.storage import Storage
from diffii.dataset.tables import open_table

_KEPT = 8
"""Row groups in memory, each 100 MB at most: two more than a thousand images of 512 pixels lie in."""


class RowGroups:
    """The row groups of the shards that `name` names."""

    def __init__(self, storage: Storage, name: Callable[[int], str]) -> None:
        self._storage, self._name = storage, name
        self._ends = lru_cache(maxsize=None)(self._read_ends)
        self._group = lru_cache(maxsize=_KEPT)(self._read_group)

    def rows(self, shard: int, numbers: np.ndarray, columns: tuple[str, ...] | None) -> list[dict[str, Any]]:
        """Rows of one shard in the order given, int64 (rows,); all columns or some."""
        ends = self._ends(shard)
        groups = np.searchsorted(ends, numbers, side="right")
        found: dict[int, dict[str, Any]] = {}
        for group in np.unique(groups).tolist():
            places = np.flatnonzero(groups == group)
            table = self._group(shard, group, columns)
            rows = table.take(numbers[places] - (ends[group - 1] if group else 0)).to_pylist()
            found.update(zip(places.tolist(), rows, strict=True))
        return [found[place] for place in range(len(numbers))]

    def _read_ends(self, shard: int) -> np.ndarray:
        """Rows up to and including each row group of a shard."""
        metadata = self._open(shard, lambda file: file.metadata)
        return np.cumsum([metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)])

    def _read_group(self, shard: int, group: int, columns: tuple[str, ...] | None) -> pa.Table:
        return self._open(shard, lambda file: file.read_row_group(group, columns, use_threads=False))

    def _open(self, shard: int, read: Callable[[pq.ParquetFile], Any]) -> Any:
        with self._storage.open(self._name(shard)) as file:
            return read(open_table(file))
