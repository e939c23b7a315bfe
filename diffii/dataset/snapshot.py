"""A data set as of one log version: exactly the rows committed by then, whatever is written meanwhile."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from PIL import Image

from diffii.dataset import log
from diffii.dataset.history import History, read_log
from diffii.dataset.row_groups import RowGroups
from diffii.dataset.storage import Storage
from diffii.dataset.tables import open_table, read_table
from diffii.errors import OutputError

if TYPE_CHECKING:
    from diffii.dataset.feed import Images


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
        self.shards_digest = history.shards.digest
        self.classes: tuple[str, ...] = history.classes
        # A copy: the snapshot must not change when the history it was made from grows.
        self._ends = history.shards.ends() if rows is None or len(rows) else np.empty(0, np.int64)
        self._groups = RowGroups(storage, lambda shard: history.shards[shard].name)

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
        return int(self._ends[-1]) if len(self._ends) else 0

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        """(image, label) of one row: what a classifier trains on. Raises IndexError outside the data set."""
        row = self.row(index)
        return _image(row), int(row["label"])

    def row(self, index: int) -> dict[str, Any]:
        """All columns of one row; `image` is a struct of bytes and path. Raises IndexError outside the data set."""
        return self.rows([index])[0]

    def rows(self, indices: Sequence[int] | np.ndarray, columns: Sequence[str] | None = None) -> list[dict[str, Any]]:
        """Some rows in the order given, with all columns or the named ones; each row group is read once for them.

        Raises IndexError outside the data set, KeyError when there is no such column.
        """
        wanted = np.asarray(indices, dtype=np.int64)
        for index in wanted[(wanted < 0) | (wanted >= len(self))][:1]:
            raise IndexError(f"row {index} of a data set of {len(self)}")
        self._check_columns(columns or ())
        if self._rows is not None:
            wanted = self._rows[wanted]
        found: dict[int, dict[str, Any]] = {}
        shards = np.searchsorted(self._ends, wanted, side="right")
        for shard in np.unique(shards).tolist():
            places = np.flatnonzero(shards == shard)
            numbers = wanted[places] - self._start(shard)
            rows = self._groups.rows(shard, numbers, None if columns is None else tuple(columns))
            found.update(zip(places.tolist(), rows, strict=True))
        return [found[place] for place in range(len(wanted))]

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
        self._check_columns(columns or ())
        stops = np.cumsum(self.sizes())
        for shard in np.flatnonzero(self.sizes()).tolist():
            with self._storage.open(self._history.shards[shard].name) as file:
                table = read_table(file.read() if columns is None else file, columns)
            if self._rows is not None:
                mine = self._rows[stops[shard - 1] if shard else 0 : stops[shard]]
                table = table.take(mine - self._start(shard))
            yield table

    def to_torch(self, transform: Callable[[Image.Image], Any] | None = None, *, columns: Sequence[str] = ()) -> Images:
        """The rows as a map data set of torch's: (image, label), in the order of the snapshot; see `Images`.

        An image is what `transform` makes of it, without one a uint8 tensor (3, H, W). With `columns` an item is a dict
        of these columns instead. Raises ImportError without torch, KeyError when there is no such column.
        """
        from diffii.dataset.feed import Images

        self._check_columns(columns)
        return Images(self, transform, columns)

    def sizes(self) -> np.ndarray:
        """Rows of this snapshot in each of its shards: int64 (shards,)."""
        ends = self._ends if self._rows is None else np.searchsorted(self._rows, self._ends)
        return np.diff(ends, prepend=0)

    def where(self, condition: pc.Expression | Sequence[tuple[str, str, Any]]) -> Snapshot:
        """The rows for which a condition on the recipe's columns holds, in the same order.

        Either an Arrow expression, `pc.field("theta") > 1.5`, or the filters that Parquet readers know:
        `[("class_name", "==", "boot"), ("suffix", "in", ["on grass"])]`. Raises KeyError for an unknown column.
        """
        expression = condition if isinstance(condition, pc.Expression) else pq.filters_to_expression(list(condition))
        found: list[np.ndarray] = []
        start = 0
        for table in self.tables(_narrow(self.columns)):
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
    def columns(self) -> list[str]:
        """Names of the columns; none before the first shard."""
        if not len(self._ends):
            return []
        with self._storage.open(self._history.shards[0].name) as file:
            return open_table(file).schema_arrow.names

    def _check_columns(self, columns: Sequence[str]) -> None:
        missing = [name for name in columns if len(self._ends) and name not in self.columns]
        if missing:
            raise KeyError(f"{self.url} has no column {missing[0]!r}; its columns are {', '.join(self.columns)}")

    def _start(self, shard: int) -> int:
        """Rows of the data set before a shard."""
        return int(self._ends[shard - 1]) if shard else 0


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
