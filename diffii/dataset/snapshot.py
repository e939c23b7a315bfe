"""A data set as of one log version: exactly the rows committed by then, whatever is written meanwhile."""

from __future__ import annotations

import bisect
import io
import json
from collections.abc import Iterator, Sequence
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from PIL import Image

from diffii.dataset import log
from diffii.dataset.history import History, read_log
from diffii.dataset.storage import Storage
from diffii.dataset.tables import open_table, read_table
from diffii.errors import OutputError

_OPEN_ROW_GROUPS = 4
"""Row groups of images kept in memory for random access, each 100 MB at most."""


class Snapshot:
    """Rows in commit order. `version` is the log entry it ends with; `classes` the names behind the labels.

    `where` gives a Snapshot of some of the rows; everything else works on it as on the whole.
    """

    def __init__(self, storage: Storage, history: History, rows: np.ndarray | None = None) -> None:
        if history.opening is None:
            raise OutputError(f"{storage.url} holds no data set of diffii")
        self._storage, self._history, self._rows = storage, history, rows
        self.url = storage.url
        self.version = history.version
        self.classes: tuple[str, ...] = history.classes
        # A list: the snapshot must not change when the history it was made from grows.
        self._ends: list[int] = [] if rows is not None and not len(rows) else history.shards.ends().tolist()
        self._row_group = lru_cache(maxsize=_OPEN_ROW_GROUPS)(self._read_row_group)
        self._groups_of = lru_cache(maxsize=None)(self._read_groups)

    def __reduce__(self) -> tuple[Any, ...]:
        """Another process opens the same version again: what has been read so far does not travel."""
        return _opened_again, (self.url, self.version, self._rows)

    @property
    def shards(self) -> list[log.Shard]:
        """The published files that hold the rows, those of `where` included."""
        return self._history.shards[: len(self._ends)]

    def __len__(self) -> int:
        if self._rows is not None:
            return len(self._rows)
        return self._ends[-1] if self._ends else 0

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        """(image, label) of one row: what a classifier trains on. Raises IndexError outside the data set."""
        row = self.row(index)
        return _image(row), int(row["label"])

    def row(self, index: int) -> dict[str, Any]:
        """All columns of one row; `image` is a struct of bytes and path. Raises IndexError outside the data set."""
        if not 0 <= index < len(self):
            raise IndexError(f"row {index} of a data set of {len(self)}")
        if self._rows is not None:
            index = int(self._rows[index])
        shard = bisect.bisect_right(self._ends, index)
        within = index - (self._ends[shard - 1] if shard else 0)
        ends = self._groups_of(shard)
        group = bisect.bisect_right(ends, within)
        start = ends[group - 1] if group else 0
        return self._row_group(shard, group).slice(within - start, 1).to_pylist()[0]

    def image(self, index: int) -> Image.Image:
        return _image(self.row(index))

    def recipe(self, index: int) -> dict[str, Any]:
        """What made a row: parents, angle, suffix, prompt, seed, and every setting that its bytes depend on."""
        return json.loads(self.row(index)["recipe"])

    @cached_property
    def labels(self) -> np.ndarray:
        """int64 (len,): the class of every row; no image is read for it."""
        return self.column("label").to_numpy()

    def column(self, name: str) -> pa.ChunkedArray:
        """One column of every row. Raises KeyError when there is no such column."""
        return self.table([name])[name]

    def table(self, columns: Sequence[str]) -> pa.Table:
        """Some columns of every row, in one table. Raises KeyError when there is no such column."""
        parts = list(self.tables(list(columns)))
        if not parts:
            return pa.table({name: pa.array([], pa.int64() if name == "label" else pa.string()) for name in columns})
        return pa.concat_tables(parts)

    def tables(self, columns: list[str] | None = None) -> Iterator[pa.Table]:
        """One table per shard, in commit order; only the named columns when given. Raises KeyError."""
        for shard, table in enumerate(self._shard_tables(columns)):
            if self._rows is None:
                yield table
                continue
            start = self._ends[shard - 1] if shard else 0
            low, high = np.searchsorted(self._rows, [start, self._ends[shard]])
            if high > low:
                yield table.take(self._rows[low:high] - start)

    def where(self, condition: pc.Expression | Sequence[tuple[str, str, Any]]) -> Snapshot:
        """The rows for which a condition on the recipe's columns holds, in the same order.

        Either an Arrow expression, `pc.field("theta") > 1.5`, or the filters that Parquet readers know:
        `[("class_name", "==", "boot"), ("suffix", "in", ["on grass"])]`. Raises KeyError for an unknown column.
        """
        expression = condition if isinstance(condition, pc.Expression) else pq.filters_to_expression(list(condition))
        found: list[np.ndarray] = []
        start = 0
        for table in self.tables(_narrow(self._columns)):
            numbered = table.append_column("_row", pa.array(np.arange(start, start + table.num_rows)))
            try:
                found.append(numbered.filter(expression)["_row"].to_numpy())
            except pa.ArrowInvalid as error:
                raise KeyError(f"{self.url}: {error}") from error
            start += table.num_rows
        rows = np.concatenate(found) if found else np.empty(0, np.int64)
        return Snapshot(self._storage, self._history, rows if self._rows is None else self._rows[rows])

    # -- reading ----------------------------------------------------------------------------------------------------

    @cached_property
    def _columns(self) -> list[str]:
        if not self._ends:
            return []
        with self._storage.open(self._history.shards[0].name) as file:
            return open_table(file).schema_arrow.names

    def _shard_tables(self, columns: list[str] | None) -> Iterator[pa.Table]:
        missing = [name for name in columns or [] if self._ends and name not in self._columns]
        if missing:
            raise KeyError(f"{self.url} has no column {missing[0]!r}; its columns are {', '.join(self._columns)}")
        for number in range(len(self._ends)):
            with self._storage.open(self._history.shards[number].name) as file:
                yield read_table(file.read() if columns is None else file, columns)

    def _read_groups(self, shard: int) -> list[int]:
        """Rows up to and including each row group of a shard."""
        with self._storage.open(self._history.shards[shard].name) as file:
            metadata = open_table(file).metadata
        sizes = [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]
        return np.cumsum(sizes).tolist()

    def _read_row_group(self, shard: int, group: int) -> pa.Table:
        with self._storage.open(self._history.shards[shard].name) as file:
            return open_table(file).read_row_group(group, use_threads=False)


def open_snapshot(url: str, version: int | None = None) -> Snapshot:
    """Open a finished or growing data set at its newest log version, or at an earlier one.

    Raises OutputError when there is no data set or its log is damaged.
    """
    storage = Storage(url)
    return Snapshot(storage, read_log(storage, version))


def _opened_again(url: str, version: int, rows: np.ndarray | None) -> Snapshot:
    storage = Storage(url)
    return Snapshot(storage, read_log(storage, version), rows)


def _image(row: dict[str, Any]) -> Image.Image:
    return Image.open(io.BytesIO(row["image"]["bytes"]))


def _narrow(columns: list[str]) -> list[str]:
    return [name for name in columns if name != "image"]
