"""Parquet, computed once per process: most lives write and read the same tables, and both are pure functions."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any
from unittest import mock

import pyarrow as pa
import pyarrow.parquet as pq

_REMEMBERED = 20_000
_write, _File = pq.write_table, pq.ParquetFile


class _Table:
    """What a `ParquetFile` is asked for here."""

    def __init__(self, data: bytes) -> None:
        self._file = _File(pa.BufferReader(data), pre_buffer=False)
        self.schema_arrow, self.metadata = self._file.schema_arrow, self._file.metadata
        self._read: dict[tuple[str, ...] | None, pa.Table] = {}

    def read(self, columns: list[str] | None = None, use_threads: bool = False) -> pa.Table:
        wanted = None if columns is None else tuple(columns)
        if wanted not in self._read:
            self._read[wanted] = self._file.read(columns=columns, use_threads=use_threads)
        return self._read[wanted]


@lru_cache(_REMEMBERED)
def _opened(data: bytes) -> _Table:
    return _Table(data)


@lru_cache(_REMEMBERED)
def _written(content: bytes, settings: str) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.open_stream(content) as stream:
        _write(stream.read_all(), sink, **json.loads(settings))
    return sink.getvalue().to_pybytes()


def _open(source: Any, **_: Any) -> _Table:
    return _opened(source.read())


def _write_once(table: pa.Table, sink: Any, **settings: Any) -> None:
    content = pa.BufferOutputStream()
    with pa.ipc.new_stream(content, table.schema) as stream:
        # One batch: where a table was cut does not show in its file.
        stream.write_table(table.combine_chunks())
    sink.write(_written(content.getvalue().to_pybytes(), json.dumps(settings)))


@contextmanager
def remembered() -> Iterator[None]:
    with mock.patch("pyarrow.parquet.ParquetFile", _open), mock.patch("pyarrow.parquet.write_table", _write_once):
        yield
