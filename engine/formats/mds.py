"""MDS, version 2: the shards that MosaicML's `streaming` reads, and the `index.json` that names them.

A shard: uint32 rows, uint32 offsets (rows + 1) from the file's start, the columns as JSON, the rows. A row: the uint32
size of each column of varying size, then the values. Everything little-endian, columns in the order of their names.
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

from diffii.errors import OutputError
from diffii.images import Encoding
from engine.formats.part import Origin, Part, Records, Written
from engine.formats.sample import Sample, samples

_SIZES = {"int": 8}
"""Bytes of a value, where all have the same."""
_SIZE_LIMIT = 64 * 2**20
"""What the writer of `streaming` notes in its shards; nothing is held to it."""


class Mds:
    """Columns caption, class_name, image, is_synthetic, json (the row), label, sample_id."""

    name: ClassVar[str] = "mds"
    patterns: ClassVar[Mapping[Origin, str]] = {}

    def write(self, part: Part) -> Written:
        columns = columns_of(part.encoding)
        data = write_shard(list(samples(part.table, part.captions)), columns)
        name = f"{'shard' if part.origin == 'data' else 'real'}.{part.number:05d}.mds"
        raw = {"basename": name, "bytes": len(data), "hashes": {"sha1": hashlib.sha1(data).hexdigest()}}
        entry = {**_config(columns), "raw_data": raw, "samples": part.table.num_rows, "zip_data": None}
        return Written(files=[(name, data)], facts={"entry": entry})

    def index(self, records: Records) -> Iterator[tuple[str, bytes]]:
        shards = [facts["entry"] for facts in records.facts]
        yield "index.json", json.dumps({"shards": shards, "version": 2}, sort_keys=True).encode()

    def usage(self, url: str, extension: str) -> str:
        return f'streaming.StreamingDataset(remote="{url}", local=CACHE, shuffle=True, batch_size=BATCH)'


def columns_of(encoding: Encoding) -> dict[str, str]:
    """Column -> encoding. WebP has none of its own there, so such images are bytes."""
    return {
        "caption": "str",
        "class_name": "str",
        "image": "bytes" if encoding == "webp" else encoding,
        "is_synthetic": "int",
        "json": "json",
        "label": "int",
        "sample_id": "str",
    }


def write_shard(rows: Sequence[Sample], columns: dict[str, str]) -> bytes:
    """One shard of these rows, uncompressed. Raises OutputError when it would be 4 GiB or more."""
    config = json.dumps(_config(columns), sort_keys=True).encode()
    encoded = [_row(row, columns) for row in rows]
    position = 4 + 4 * (len(rows) + 1) + len(config)
    offsets = [position]
    for data in encoded:
        offsets.append(offsets[-1] + len(data))
    if offsets[-1] >= 2**32:
        raise OutputError(
            f"{offsets[-1]} bytes do not fit into one MDS shard, which ends at 4 GiB: export with another encoding, or "
            "make the data set with a smaller output.shard_rows"
        )
    return b"".join([struct.pack(f"<{len(rows) + 2}I", len(rows), *offsets), config, *encoded])


def _config(columns: dict[str, str]) -> dict[str, Any]:
    return {
        "column_encodings": list(columns.values()),
        "column_names": list(columns),
        "column_sizes": [_SIZES.get(encoding) for encoding in columns.values()],
        "compression": None,
        "format": "mds",
        "hashes": ["sha1"],
        "size_limit": _SIZE_LIMIT,
        "version": 2,
    }


def _row(row: Sample, columns: dict[str, str]) -> bytes:
    values = {
        "caption": row.caption.encode(),
        "class_name": row.class_name.encode(),
        "image": row.image,
        "is_synthetic": struct.pack("<q", row.is_synthetic),
        "json": row.json(),
        "label": struct.pack("<q", row.label),
        "sample_id": row.key.encode(),
    }
    sizes = [len(values[name]) for name, encoding in columns.items() if encoding not in _SIZES]
    return struct.pack(f"<{len(sizes)}I", *sizes) + b"".join(values[name] for name in columns)
