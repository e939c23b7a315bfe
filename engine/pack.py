"""Packing: the kept rows of consecutive staged chunks become one published shard and its sidecar.

Runs as a small Ray task, so that images never pass through the driver. Both files follow from the plan and the staged
chunks, to the byte; whoever packs them again finds them there.
"""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa

from diffii.dataset import layout, log, staged
from diffii.dataset.patience import Meter, Tally
from diffii.dataset.storage import Storage
from diffii.dataset.tables import write_table
from diffii.errors import FencedError, OutputError
from diffii.hashing import sha256
from engine.formats.parquet import write_shard

SIDECAR = ["sample_id", "label", "ordinal", "image_sha256", "phash", "embedding"]
"""What a run that goes on compares new rows with, and finds rows by, without opening a shard of images."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PackOrder:
    """Which rows of which staged chunks become shard number `index`."""

    url: str
    index: int
    wave: int
    first: int
    last: int
    lost_rows: tuple[int, ...]
    classes: tuple[str, ...]
    extension: str


def pack(order: PackOrder) -> log.Shard:
    """Write one shard and its sidecar, or find them written.

    Raises OutputError when a different file is there, FencedError when the staged chunks are not there any more.
    """
    storage = Storage(order.url)
    chunks = [layout.staged_chunk(order.wave, chunk) for chunk in range(order.first, order.last + 1)]
    try:
        rows = pa.concat_tables([staged.read_rows(storage, name) for name in chunks])
    except FileNotFoundError:
        raise published_already(order.url, order.first) from None
    lost = set(order.lost_rows)
    kept = rows.take([row for row in range(rows.num_rows) if row not in lost])
    shard, sidecar = layout.shard(order.index), layout.sidecar(order.index)
    narrow = write_table(kept.select(SIDECAR).replace_schema_metadata())
    data = write_shard(kept, order.classes, order.extension)
    # The sidecar first: a shard that readers may see has one.
    _publish(storage, sidecar, narrow)
    _publish(storage, shard, data)
    return log.Shard(
        name=shard,
        rows=kept.num_rows,
        bytes=len(data),
        sha256=sha256(data),
        sidecar=sidecar,
        sidecar_sha256=sha256(narrow),
    )


def pack_counted(order: PackOrder) -> tuple[log.Shard, Tally]:
    """`pack`, and what it asked of storage."""
    calls = Meter()
    return pack(order), calls.read()


def published_already(url: str, chunk: int) -> FencedError:
    """Why a staged chunk can be gone: they go when their entry is in the log, and this driver has not written it."""
    return FencedError(
        f"{url}: another process commits this run and has published chunk {chunk} already; "
        "this one stops and has lost nothing"
    )


def _publish(storage: Storage, name: str, data: bytes) -> None:
    if not storage.put_once(name, data) and storage.read(name) != data:
        raise OutputError(
            f"{storage.url}/{name} exists and is not what this run would write there: "
            "it was made by another version, or by hand. Move it away and run the same command again"
        )
