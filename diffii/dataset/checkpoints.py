"""Log checkpoints: a stretch of log entries in one Parquet file, so that a million of them open in seconds.

Entries stay what they are, one file each; a checkpoint only saves reading them. There are two sizes: a page of 100
entries, and a folder of 10 000 that takes the place of its pages. So whatever the length of a log, opening it reads one
file per 10 000 entries, fewer than 100 pages and fewer than 100 entries. A folder's checkpoint also holds the sums over
its entries, so that what became of each row need not be read for them.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from diffii.dataset import layout, log
from diffii.dataset.layout import LOG_FOLDER, LOG_PAGE
from diffii.dataset.storage import Storage
from diffii.dataset.tables import open_table, read_table, write_table
from diffii.errors import OutputError

READERS = 16
"""Entries are small: on an object store latency decides, and a hundred of them one by one take seconds."""

SCHEMA = pa.schema(
    [
        ("wave", pa.int32()),
        ("first", pa.int64()),
        ("last", pa.int64()),
        ("rows", pa.int64()),
        ("labels", pa.list_(pa.int32())),
        ("kept", pa.list_(pa.int32())),
        ("lost_rows", pa.list_(pa.int32())),
        ("lost_outcomes", pa.list_(pa.string())),
        ("lost_reasons", pa.list_(pa.string())),
        ("shard", pa.string()),
        ("shard_rows", pa.int64()),
        ("shard_bytes", pa.int64()),
        ("shard_sha256", pa.string()),
        ("sidecar", pa.string()),
        ("sidecar_sha256", pa.string()),
        ("fingerprints", pa.list_(pa.string())),
        ("other", pa.string()),
    ]
)
"""One row per entry. `other` holds the JSON of one that is no commit, and every other column is then null."""


NARROW = ["shard", "shard_rows", "shard_bytes", "shard_sha256", "sidecar", "sidecar_sha256", "other"]
"""What is read of a folder's checkpoint beside its sums."""
_SUMS = b"sums"


@dataclass(frozen=True, slots=True)
class Sums:
    """What the commits of a stretch of entries add up to."""

    commits: int
    rows: int
    kept: dict[str, int]
    """Label -> kept rows."""
    lost: list[tuple[str, str, int]]
    """(outcome, reason, rows)."""
    fingerprints: list[str]
    decided: dict[str, int]
    """Wave -> the first chunk that is not decided."""


def sums_of(table: pa.Table) -> Sums:
    """The sums over a table of entries, column by column."""
    table = table.filter(table["other"].is_null())
    labels, kept = (_flat(table[name]).to_numpy() for name in ("labels", "kept"))
    sums = np.bincount(labels, weights=kept) if len(labels) else np.empty(0)
    outcomes, reasons = (_flat(table[name]).to_pylist() for name in ("lost_outcomes", "lost_reasons"))
    lost = Counter(zip(outcomes, reasons, strict=True))
    waves, lasts = table["wave"].to_numpy(), table["last"].to_numpy()
    return Sums(
        commits=table.num_rows,
        rows=int(table["rows"].to_numpy().sum()) if table.num_rows else 0,
        kept={str(label): int(sums[label]) for label in np.flatnonzero(sums)},
        lost=[(outcome, reason, rows) for (outcome, reason), rows in lost.items()],
        fingerprints=sorted(_flat(table["fingerprints"]).unique().to_pylist()),
        decided={str(wave): int(lasts[waves == wave].max()) + 1 for wave in np.unique(waves)},
    )


def with_sums(table: pa.Table) -> pa.Table:
    """A table as it is written for a whole folder."""
    sums = json.dumps(asdict(sums_of(table)), sort_keys=True, ensure_ascii=False).encode()
    return table.replace_schema_metadata({_SUMS: sums})


def to_table(entries: Iterable[log.Entry]) -> pa.Table:
    return pa.Table.from_pylist([_to_row(entry) for entry in entries], schema=SCHEMA)


def from_table(table: pa.Table) -> list[log.Entry]:
    return [_from_row(row) for row in table.to_pylist()]


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


def _to_row(entry: log.Entry) -> dict[str, Any]:
    if not isinstance(entry, log.CommitEntry):
        return {"other": log.encode(entry).decode()}
    lost = [(int(row), outcome, reason) for outcome, rows in entry.lost.items() for row, reason in rows.items()]
    row: dict[str, Any] = {
        "wave": entry.wave,
        "first": entry.first,
        "last": entry.last,
        "rows": entry.rows,
        "labels": [int(label) for label in entry.kept_per_class],
        "kept": list(entry.kept_per_class.values()),
        "lost_rows": [row for row, _, _ in lost],
        "lost_outcomes": [outcome for _, outcome, _ in lost],
        "lost_reasons": [reason for _, _, reason in lost],
        "fingerprints": entry.fingerprints,
    }
    if entry.shard is not None:
        shard = entry.shard
        row |= {"shard": shard.name, "sidecar": shard.sidecar, "sidecar_sha256": shard.sidecar_sha256}
        row |= {"shard_rows": shard.rows, "shard_bytes": shard.bytes, "shard_sha256": shard.sha256}
    return row


def shard_of(row: dict[str, Any]) -> log.Shard:
    """The shard that a row's columns tell of."""
    return log.Shard(
        name=row["shard"],
        rows=row["shard_rows"],
        bytes=row["shard_bytes"],
        sha256=row["shard_sha256"],
        sidecar=row["sidecar"],
        sidecar_sha256=row["sidecar_sha256"],
    )


def _from_row(row: dict[str, Any]) -> log.Entry:
    if row["other"] is not None:
        kind = json.loads(row["other"]).get("kind")
        return log.decode(row["other"].encode(), f"a checkpoint's entry of kind {kind}")
    lost: dict[str, dict[str, str]] = {}
    for number, outcome, reason in zip(row["lost_rows"], row["lost_outcomes"], row["lost_reasons"], strict=True):
        lost.setdefault(outcome, {})[str(number)] = reason
    return log.CommitEntry(
        wave=row["wave"],
        first=row["first"],
        last=row["last"],
        rows=row["rows"],
        lost=lost,
        kept_per_class={str(label): kept for label, kept in zip(row["labels"], row["kept"], strict=True)},
        shard=shard_of(row) if row["shard"] is not None else None,
        fingerprints=row["fingerprints"],
    )


def _flat(column: pa.ChunkedArray) -> pa.Array:
    return column.combine_chunks().flatten()
