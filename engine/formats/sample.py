"""A row for the formats that know no columns: key, image, label, caption, and one JSON object for the rest."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

_NOTHING = {pa.int64(): 0, pa.uint64(): 0, pa.float64(): 0.0, pa.string(): "", pa.bool_(): False, pa.binary(8): b""}


@dataclass(frozen=True, slots=True)
class Sample:
    """One row. `key` is its sample id, hexadecimal: some readers cut a name at its first dot."""

    key: str
    image: bytes
    label: int
    class_name: str
    caption: str
    is_synthetic: bool
    facts: dict[str, Any]
    """The columns of the row but the image, each of one JSON type in every row: nothing is 0 or "", a number that may
    exceed 2^53 or bytes are text."""

    def json(self) -> bytes:
        return json.dumps(self.facts, sort_keys=True, ensure_ascii=False, separators=(",", ":")).encode()


def samples(table: pa.Table, captions: Sequence[str]) -> Iterator[Sample]:
    """The rows of a published table, in order; `captions[label]` begins each one's caption."""
    types = {column.name: column.type for column in table.schema if column.name != "image"}
    for row in table.to_pylist():
        image = row.pop("image")["bytes"]
        facts = {name: _plain(row[name], kind) for name, kind in types.items()}
        yield Sample(
            key=row["sample_id"],
            image=image,
            label=row["label"],
            class_name=row["class_name"],
            caption=f"{captions[row['label']]} {row['suffix']}".strip(),
            is_synthetic=row["is_synthetic"],
            facts=facts,
        )


def _plain(value: Any, kind: pa.DataType) -> Any:
    if value is None:
        value = _NOTHING[kind]
    if isinstance(value, bytes):
        return value.hex()
    return str(value) if kind == pa.uint64() else value
