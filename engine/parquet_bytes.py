"""Arrow tables <-> bytes of small Parquet files that are ours alone."""

from __future__ import annotations

import io

import pyarrow as pa
import pyarrow.parquet as pq


def write_table(table: pa.Table) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd")
    return buffer.getvalue()


def read_table(data: bytes, columns: list[str] | None = None) -> pa.Table:
    return pq.read_table(io.BytesIO(data), columns=columns)
