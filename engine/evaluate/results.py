"""Figures that accumulate: a Parquet file of which every finished training is a row, and that knows what is there."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from diffii.dataset.storage import Storage
from diffii.dataset.tables import read_table, write_table
from diffii.errors import OutputError

KEY = ("task", "arm", "shots", "imbalance", "classifier", "seed", "settings")
FIGURES = ("accuracy", "worst_group", "few", "novel", "many", "medium", "base", "group_average")
"""Percent; empty where a task does not tell them apart, and `group_average` where groups are of one size, so that it is
the accuracy. New ones come last: what was measured before they were there is still read."""
RESULTS = pa.schema(
    [("task", pa.string()), ("arm", pa.string()), ("shots", pa.int64()), ("imbalance", pa.int64())]
    + [("classifier", pa.string()), ("seed", pa.int64())]
    + [(name, pa.float64()) for name in FIGURES]
    + [("p", pa.float64()), ("lr", pa.float64()), ("real", pa.int64()), ("synthetic", pa.int64())]
    + [("seconds", pa.float64()), ("settings", pa.string())]
)
"""A row of `results.parquet`. `real` and `synthetic` count images, `seconds` are those of the training; `settings`
names what else a figure follows from (`Study.settings`)."""
TUNING = pa.schema([field for field in RESULTS if field.name not in FIGURES[1:]])
"""A row of `choices.parquet`: the same, measured on the images that settings are chosen on."""


class Rows:
    """One such file. Rows are added by one process; threads of it may do so."""

    def __init__(self, storage: Storage, name: str, schema: pa.Schema, key: Sequence[str]) -> None:
        """Raises OutputError when the file is not such a table."""
        self._storage, self._name, self._schema, self._key = storage, name, schema, tuple(key)
        self._lock = threading.Lock()
        data = storage.read_or_none(name)
        try:
            rows = _with_new_figures(read_table(data), schema).cast(schema).to_pylist() if data else []
        except (pa.ArrowException, ValueError) as error:
            raise OutputError(
                f"{storage.url}/{name} is no table of this version's results ({error}); move it away"
            ) from error
        self._rows = {self._name_of(row): row for row in rows}

    def find(self, **key: Any) -> dict[str, Any] | None:
        return self._rows.get(self._name_of(key))

    def add(self, row: dict[str, Any]) -> None:
        """Add a row and write the file anew: whole or not at all, so that a study may be ended at any moment."""
        with self._lock:
            self._rows[self._name_of(row)] = row
            table = pa.Table.from_pylist(sorted(self._rows.values(), key=self._order), schema=self._schema)
            self._storage.put(self._name, write_table(table))

    def where(self, **values: Any) -> list[dict[str, Any]]:
        """Rows that have these values, in the order of the file."""
        rows = [row for row in self._rows.values() if all(row[name] == value for name, value in values.items())]
        return sorted(rows, key=self._order)

    def _name_of(self, row: dict[str, Any]) -> tuple[Any, ...]:
        return tuple(row[name] for name in self._key)

    def _order(self, row: dict[str, Any]) -> tuple[str, ...]:
        return tuple(f"{row[name]:09d}" if isinstance(row[name], int) else str(row[name]) for name in self._key)


def _with_new_figures(table: pa.Table, schema: pa.Schema) -> pa.Table:
    for place, field in enumerate(schema):
        if field.name in FIGURES[1:] and field.name not in table.column_names:
            table = table.add_column(min(place, table.num_columns), field, pa.nulls(table.num_rows, field.type))
    return table
