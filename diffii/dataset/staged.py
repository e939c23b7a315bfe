"""A staged chunk: what one actor made of one chunk, in one file that exists only when it is whole.

The narrow columns come first, so that the committer reads them (ids, outcomes, signatures) without the images.
"""

from __future__ import annotations

import io
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from diffii.dataset.storage import Storage
from diffii.dataset.tables import open_table, read_table

KEPT, REJECTED, POISONED = "kept", "rejected", "poisoned"

SCHEMA = pa.schema(
    [
        ("sample_id", pa.string()),
        ("outcome", pa.string()),
        ("reason", pa.string()),
        ("label", pa.int64()),
        ("ordinal", pa.int64()),
        ("image_sha256", pa.string()),
        ("phash", pa.binary(8)),
        ("embedding", pa.binary()),
        ("phi", pa.float64()),
        ("theta", pa.float64()),
        ("seed", pa.uint64()),
        ("parent_a", pa.string()),
        ("parent_b", pa.string()),
        ("suffix", pa.string()),
        ("recipe", pa.string()),
        ("image", pa.binary()),
    ]
)
EDITED = pa.schema([("strength", pa.float64()), ("source_label", pa.int64()), ("label_weight", pa.float64())])
"""Further columns of rows that edit an image (`diffii.arms.edit`): the part of the path that was denoised anew, the
class of that image, and the weight of `label` beside it."""
SIGNATURE = ["sample_id", "outcome", "reason", "label", "image_sha256", "phash", "embedding"]
_FINGERPRINT = b"fingerprint"


def encode(rows: list[dict[str, Any]], fingerprint: str) -> bytes:
    """Rows in plan order, with what computed them."""
    schema = pa.schema([*SCHEMA, *EDITED]) if EDITED.names[0] in rows[0] else SCHEMA
    table = pa.Table.from_pylist(rows, schema=schema.with_metadata({_FINGERPRINT: fingerprint}))
    buffer = io.BytesIO()
    # Images do not compress, and dictionary encoding would hash every one of them.
    pq.write_table(table, buffer, compression="none", use_dictionary=False, write_statistics=False)
    return buffer.getvalue()


def read_signature(storage: Storage, name: str) -> tuple[pa.Table, str]:
    """The signature columns of a staged chunk and its fingerprint. Raises FileNotFoundError."""
    with storage.open(name) as file:
        parquet = open_table(file)
        fingerprint = (parquet.schema_arrow.metadata or {}).get(_FINGERPRINT, b"").decode()
        return parquet.read(columns=SIGNATURE, use_threads=False), fingerprint


def read_rows(storage: Storage, name: str) -> pa.Table:
    """The whole staged chunk. Raises FileNotFoundError."""
    return read_table(storage.read(name))
