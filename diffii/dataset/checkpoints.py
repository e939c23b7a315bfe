"""Log checkpoints: a stretch of log entries in one Parquet file, so that a million of them open in seconds.

Entries stay what they are, one file each; a checkpoint only saves reading them. There are two sizes: a page of 100
entries, and a folder of 10 000 that takes the place of its pages. So whatever the length of a log, opening it reads one
file per 10 000 entries, fewer than 100 pages and fewer than 100 entries. A folder's checkpoint also holds the sums over
its entries, so that what became of each row need not be read for them.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict

import pyarrow as pa

from diffii.dataset import layout, log
from diffii.dataset.layout import LOG_FOLDER, LOG_PAGE
from diffii.dataset.log_table import SCHEMA, Sums, sums_of, to_table
from diffii.dataset.storage import Storage
from diffii.dataset.tables import open_table, read_table, write_table
from diffii.errors import OutputError

READERS = 16
"""Entries are small: on an object store latency decides, and a hundred of them one by one take seconds."""
NARROW = ["shard", "shard_rows", "shard_bytes", "shard_sha256", "sidecar", "sidecar_sha256", "other"]
"""What is read of a folder's checkpoint beside its sums."""
_SUMS = b"sums"


def with_sums(table: pa.Table) -> pa.Table:
    """A table as it is written for a whole folder."""
    sums = json.dumps(asdict(sums_of(table)), sort_keys=True, ensure_ascii=False).encode()
    return table.replace_schema_metadata({_SUMS: sums})


def read_checkpoint(storage: Storage, name: str, entries: int) -> pa.Table | None:
    """A checkpoint of so many entries, or None when it is not there or damaged: the entries themselves are."""
    data = storage.read_or_none(name)
    if data is None:
        return None
    try:
        table = read_table(data)
    except (pa.ArrowException, OSError):
        return None
    return table if table.schema.equals(SCHEMA) and table.num_rows == entries else None


def read_summed(storage: Storage, name: str, entries: int) -> tuple[pa.Table, Sums] | None:
    """The `NARROW` columns and the sums of a folder's checkpoint; None when it is not there or damaged."""
    data = storage.read_or_none(name)
    if data is None:
        return None
    try:
        file = open_table(data)
        sums = json.loads((file.schema_arrow.metadata or {})[_SUMS])
        if file.metadata.num_rows != entries:
            return None
        return file.read(columns=NARROW, use_threads=False), Sums(**{**sums, "lost": [tuple(x) for x in sums["lost"]]})
    except (pa.ArrowException, OSError, KeyError, ValueError, TypeError):
        return None


def write_due(storage: Storage, version: int) -> None:
    """Write the checkpoints that end with entry `version`, which has just been written, if any."""
    count = version + 1
    if count % LOG_PAGE == 0:
        first = count - LOG_PAGE
        _write(storage, layout.log_checkpoint(first), to_table(read_entries(storage, range(first, count))))
    if count % LOG_FOLDER == 0:
        _write_folder(storage, count - LOG_FOLDER)


def write_missing(storage: Storage, version: int, known: int) -> None:
    """Write what a driver that died did not come to; entries below `known` are in checkpoints already."""
    for end in range(known - known % LOG_PAGE + LOG_PAGE, version + 2, LOG_PAGE):
        write_due(storage, end - 1)


def faulty(storage: Storage, version: int) -> list[str]:
    """Checkpoints up to `version` that are missing, damaged, or say other than the entries do."""
    found: list[str] = []
    for first in range(0, version + 2 - LOG_PAGE, LOG_PAGE):
        entries = read_entries(storage, range(first, first + LOG_PAGE))
        if not _says(storage, layout.log_checkpoint(first), entries):
            found.append(layout.log_checkpoint(first))
    for first in range(0, version + 2 - LOG_FOLDER, LOG_FOLDER):
        entries = read_entries(storage, range(first, first + LOG_FOLDER))
        if not _says(storage, layout.log_folder_checkpoint(first), entries):
            found.append(layout.log_folder_checkpoint(first))
    return found


def _says(storage: Storage, name: str, entries: list[log.Entry]) -> bool:
    table = read_checkpoint(storage, name, len(entries))
    return table is not None and table.equals(to_table(entries))


def read_entries(storage: Storage, versions: Sequence[int]) -> list[log.Entry]:
    """Single entries, several at a time. Raises OutputError naming the one that is missing or damaged."""
    if len(versions) < 2:
        return [_read_entry(storage, version) for version in versions]
    with ThreadPoolExecutor(READERS) as pool:
        return list(pool.map(lambda version: _read_entry(storage, version), versions))


def _read_entry(storage: Storage, version: int) -> log.Entry:
    name = layout.log_entry(version)
    data = storage.read_or_none(name)
    if data is None:
        raise OutputError(f"{storage.url}: log entry {version} is missing; restore it from a copy")
    return log.decode(data, name)


def _write_folder(storage: Storage, first: int) -> None:
    pages: list[pa.Table] = []
    for start in range(first, first + LOG_FOLDER, LOG_PAGE):
        page = read_checkpoint(storage, layout.log_checkpoint(start), LOG_PAGE)
        if page is None:
            page = to_table(read_entries(storage, range(start, start + LOG_PAGE)))
        pages.append(page)
    _write(storage, layout.log_folder_checkpoint(first), with_sums(pa.concat_tables(pages).combine_chunks()))


def _write(storage: Storage, name: str, table: pa.Table) -> None:
    data = write_table(table)
    if not storage.put_once(name, data) and read_checkpoint(storage, name, table.num_rows) is None:
        storage.put(name, data)  # a damaged one; nothing but speed relies on it
