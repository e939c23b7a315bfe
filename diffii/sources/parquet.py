"""Parquet with images and labels in it, as Hugging Face `datasets`, pandas and Spark write it.

An image's place is `file.parquet#row`.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from diffii.dataset.storage import Storage
from diffii.dataset.tables import open_table
from diffii.errors import SourceError
from diffii.images import UnreadableImage
from diffii.sources.interface import (
    CAPTION_COLUMNS,
    CONTEXT_COLUMNS,
    IMAGE_COLUMNS,
    LABEL_COLUMNS,
    Listing,
    first_of,
    words,
)
from diffii.sources.labels import listed, names_in
from diffii.sources.splits import AS_USUAL, Splits, is_one, shards

SUFFIX = ".parquet"
_GROUP_BYTES = 256 * 2**20
"""A row group up to this size is held whole, so that any row of it is at hand; pandas writes groups of any size."""
_ROWS = 64
"""Rows held at a time of a larger one."""


@dataclass(slots=True)
class _Held:
    """Rows of a file that are in memory, and where the next ones come from."""

    name: str
    group: int
    first: int
    column: Any
    rest: Iterator[pa.RecordBatch] | None = None


class ParquetImages:
    """Images and labels of one Parquet file or a folder of them, in the layout of Hugging Face `datasets`.

    `image` is a struct with `bytes`, or plain binary; `label` an integer (names from the schema's metadata when they
    are there) or a string; `caption` or `text`, and `context`, are taken along. Raises SourceError naming the file when
    a column is missing or the file is damaged.
    """

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._one = is_one(storage, SUFFIX)
        self._files = shards(storage, SUFFIX)
        self._lock = threading.Lock()
        self._open: dict[str, pq.ParquetFile] = {}
        self._held: _Held | None = None

    def listing(self, splits: Splits = AS_USUAL) -> Listing:
        rows: list[tuple[str, Any, str, str]] = []
        names: list[str] | None = None
        chosen = splits.chosen(list(dict.fromkeys(self._files.values())), self._storage.url)
        for name in (name for name, split in self._files.items() if split in chosen):
            file = self.file(name)
            column = _column(file, LABEL_COLUMNS, name, self._storage.url)
            _column(file, IMAGE_COLUMNS, name, self._storage.url)
            names = names or names_in(features_of(file.schema_arrow), column)
            columns = self.column(name, column), self._words(name, CAPTION_COLUMNS), self._words(name, CONTEXT_COLUMNS)
            rows += [(f"{name}#{row}", *values) for row, values in enumerate(zip(*columns, strict=True))]
        return listed(rows, names, self._storage.url)

    def read(self, where: str) -> bytes:
        """Raises UnreadableImage when the row holds no image bytes, SourceError when it cannot be read at all."""
        name, _, number = where.rpartition("#")
        with self._lock:
            value = self._row(name, int(number))
        if isinstance(value, dict):
            value = value.get("bytes")
        if not isinstance(value, bytes):
            raise UnreadableImage("the row holds no image bytes")
        return value

    def files(self) -> list[str]:
        return list(self._files)

    def column(self, name: str, column: str) -> list[Any]:
        """One column of a file, without its images. Raises SourceError when the file is damaged."""
        with self._whole(name):
            return self.file(name).read(columns=[column], use_threads=False).column(0).to_pylist()

    def file(self, name: str) -> pq.ParquetFile:
        """Raises SourceError naming the file when it is no whole Parquet file."""
        if name not in self._open:
            with self._whole(name):
                # A source that is one Parquet file has no name below its own URL.
                self._open[name] = open_table(self._storage.open("" if self._one else name))
        return self._open[name]

    def _words(self, name: str, wanted: tuple[str, ...]) -> list[str]:
        file = self.file(name)
        column = first_of(file.schema_arrow.names, wanted)
        if column is None:
            return [""] * file.metadata.num_rows
        return [words(value) for value in self.column(name, column)]

    def _row(self, name: str, row: int) -> Any:
        file = self.file(name)
        group = 0
        if row >= file.metadata.num_rows:
            raise SourceError(f"{self._storage.url}: {name} has no row {row} any more; restore the file")
        while row >= file.metadata.row_group(group).num_rows:
            row -= file.metadata.row_group(group).num_rows
            group += 1
        with self._whole(name):
            held = self._held
            if held is None or (held.name, held.group) != (name, group) or row < held.first:
                held = self._hold(name, file, group)
            while held.rest is not None and row >= held.first + len(held.column):
                batch = next(held.rest)
                held.first, held.column = held.first + len(held.column), batch.column(0)
        return held.column[row - held.first].as_py()

    def _hold(self, name: str, file: pq.ParquetFile, group: int) -> _Held:
        column = _column(file, IMAGE_COLUMNS, name, self._storage.url)
        self._held = None
        if file.metadata.row_group(group).total_byte_size <= _GROUP_BYTES:
            whole = file.read_row_group(group, columns=[column], use_threads=False).column(0)
            self._held = _Held(name, group, 0, whole)
        else:
            # The open file reads whole columns of a group at once; this one reads them a little at a time.
            source = self._storage.open("" if self._one else name)
            parts = open_table(source, buffer_size=2**20).iter_batches(
                _ROWS, row_groups=[group], columns=[column], use_threads=False
            )
            self._held = _Held(name, group, 0, next(parts).column(0), parts)
        return self._held

    @contextmanager
    def _whole(self, name: str) -> Iterator[None]:
        try:
            yield
        except (pa.ArrowException, OSError) as error:
            raise SourceError(
                f"{self._storage.url}: {name} is not a whole Parquet file ({error}); copy it again, or take it out of "
                "the source: nothing else is lost"
            ) from error


def features_of(schema: pa.Schema) -> Any:
    """What `datasets` writes of its features into a schema's metadata; None when there is nothing."""
    try:
        return json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
    except (KeyError, ValueError, TypeError):
        return None


def _column(file: pq.ParquetFile, wanted: tuple[str, ...], name: str, url: str) -> str:
    columns = file.schema_arrow.names
    column = first_of(columns, wanted)
    if column is None:
        raise SourceError(f"{url}: {name} has no column {wanted[0]!r}; its columns are {', '.join(columns)}")
    return column
