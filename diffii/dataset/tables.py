"""Parquet bytes <-> Arrow tables, on the calling thread alone.

`pyarrow.parquet.read_table` starts Arrow's thread pools, and with pyarrow 26 about one short process in twenty then
died at exit ("terminate called without an active exception"), after its work was done but with a failing exit status. A
`ParquetFile` without threads and read-ahead starts none.
"""

from __future__ import annotations

import io
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq


def open_table(source: bytes | Any, buffer_size: int = 0) -> pq.ParquetFile:
    """Parquet from bytes or a seekable binary file. Raises pyarrow.ArrowInvalid when it is none.

    Of a column of a row group so many bytes are read at a time; 0 reads it at once.
    """
    file = io.BytesIO(source) if isinstance(source, bytes) else source
    return pq.ParquetFile(file, pre_buffer=False, buffer_size=buffer_size)


def read_table(source: bytes | Any, columns: list[str] | None = None) -> pa.Table:
    return open_table(source).read(columns=columns, use_threads=False)


def write_table(table: pa.Table) -> bytes:
    """A small table of ours, compressed."""
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd")
    return buffer.getvalue()
