"""A data set as of one log version: exactly the rows committed by then, whatever is written meanwhile."""

from __future__ import annotations

import bisect
import io
from collections.abc import Iterator, Sequence
from functools import lru_cache

import pyarrow as pa
from PIL import Image

from diffii.dataset import log
from diffii.dataset.storage import Storage
from diffii.dataset.tables import read_table
from diffii.errors import OutputError


class Snapshot:
    """Rows in commit order. `version` is the log entry it ends with; `classes` the names behind the labels."""

    def __init__(self, storage: Storage, entries: Sequence[log.Entry]) -> None:
        first = entries[0] if entries else None
        if not isinstance(first, log.OpenEntry):
            raise OutputError(f"{storage.url} holds no data set of diffii")
        self._storage = storage
        self.version = len(entries) - 1
        self.classes: tuple[str, ...] = tuple(first.classes)
        self.shards = tuple(entry.shard for entry in entries if isinstance(entry, log.CommitEntry) and entry.shard)
        self._ends: list[int] = []
        for shard in self.shards:
            self._ends.append((self._ends[-1] if self._ends else 0) + shard.rows)
        self._shard_table = lru_cache(maxsize=2)(self._read_shard)

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def tables(self, columns: list[str] | None = None) -> Iterator[pa.Table]:
        """One table per shard, in commit order; only the named columns when given."""
        for shard in self.shards:
            with self._storage.open(shard.name) as file:
                yield read_table(file.read() if columns is None else file, columns)

    def row(self, index: int) -> dict[str, object]:
        """All columns of one row; `image` is a struct of bytes and path. Raises IndexError outside the data set."""
        if not 0 <= index < len(self):
            raise IndexError(f"row {index} of a data set of {len(self)}")
        shard = bisect.bisect_right(self._ends, index)
        start = self._ends[shard - 1] if shard else 0
        return self._shard_table(shard).slice(index - start, 1).to_pylist()[0]

    def image(self, index: int) -> Image.Image:
        value = self.row(index)["image"]
        assert isinstance(value, dict)
        return Image.open(io.BytesIO(value["bytes"]))

    def _read_shard(self, number: int) -> pa.Table:
        return read_table(self._storage.read(self.shards[number].name))


def open_snapshot(url: str, version: int | None = None) -> Snapshot:
    """Open a finished or growing data set at its newest log version, or at an earlier one.

    Raises OutputError when there is no data set or its log is damaged.
    """
    storage = Storage(url)
    return Snapshot(storage, log.read_log(storage, version))
