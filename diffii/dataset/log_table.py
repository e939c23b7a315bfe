"""Log entries as a table, a row each, and what they add up to: the inside of a checkpoint."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from diffii.dataset import log

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


def to_table(entries: Iterable[log.Entry]) -> pa.Table:
    return pa.Table.from_pylist([_to_row(entry) for entry in entries], schema=SCHEMA)


def from_table(table: pa.Table) -> list[log.Entry]:
    return [_from_row(row) for row in table.to_pylist()]


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
