"""One part of a copy: read a committed shard or a stretch of real images, encode anew if asked, write the files.

A part's record is written last, by exclusive creation: where it is, the part is whole. Whoever makes the part again
makes the same bytes and finds them there, so a killed export, or two at once, change nothing.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from diffii.dataset.storage import Storage
from diffii.dataset.tables import read_table
from diffii.errors import OutputError
from diffii.hashing import digest, sha256
from diffii.images import decode, encode, extension
from engine.export.real import real_table
from engine.export.settings import PARTS, Settings
from engine.formats.catalog import FORMATS
from engine.formats.part import Origin, Part
from engine.source import Source, SourceImage

_ENCODERS = 4
_WRITERS = 8
"""Files of one part at once: an ImageFolder has a thousand small ones, and each waits for the disk."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PartOrder:
    """Everything a part's files follow from; small enough to travel."""

    url: str
    """Of the data set."""
    destination: str
    settings: Settings
    origin: Origin
    number: int
    classes: tuple[str, ...]
    captions: tuple[str, ...]
    shard: str = ""
    sha256: str = ""
    """Of the published shard."""
    source_url: str = ""
    images: tuple[SourceImage, ...] = ()
    ordinals: tuple[int, ...] = ()
    soft: bool = False

    @property
    def of(self) -> str:
        """What the part is made of."""
        return self.sha256 or digest([[image.sha256, image.label] for image in self.images])


def record_name(origin: Origin, number: int) -> str:
    return f"{PARTS}/{origin}-{number:06d}.json"


def part_of(name: str) -> tuple[Origin, int] | None:
    """The part that a file among the records is about; None when it is none of ours."""
    origin, _, number = name.removesuffix(".json").partition("-")
    if not number.isdigit():
        return None
    return ("real", int(number)) if origin == "real" else ("data", int(number)) if origin == "data" else None


def make_part(order: PartOrder) -> dict[str, Any]:
    """Write the files of one part and its record, or find them written; the record.

    Raises OutputError when other files are there or the published shard is damaged, SourceError when a real image has
    changed or gone.
    """
    storage, settings = Storage(order.destination), order.settings
    part = Part(
        origin=order.origin,
        number=order.number,
        table=_rows(order),
        classes=order.classes,
        captions=order.captions,
        encoding=settings.encoding,
    )
    written = FORMATS[settings.format].write(part)
    *most, last = written.files
    with ThreadPoolExecutor(_WRITERS) as pool:
        list(pool.map(lambda file: _publish(storage, *file), most))
    _publish(storage, *last)
    record = {
        "origin": order.origin,
        "number": order.number,
        "of": order.of,
        "rows": part.table.num_rows,
        "files": [{"name": name, "bytes": len(data), "sha256": sha256(data)} for name, data in written.files],
        "facts": dict(written.facts),
    }
    _publish(storage, record_name(order.origin, order.number), _dump(record))
    return record


def read_records(storage: Storage, parts: Iterable[tuple[Origin, int]]) -> list[dict[str, Any]]:
    """The records of these parts, which are there."""
    with ThreadPoolExecutor(_WRITERS) as pool:
        return [json.loads(data) for data in pool.map(lambda part: storage.read(record_name(*part)), parts)]


def _rows(order: PartOrder) -> pa.Table:
    settings = order.settings
    if order.origin == "real":
        source = Source(order.source_url, order.classes, order.images)
        return real_table(source, order.ordinals, settings.encoding, settings.quality, order.soft)
    storage = Storage(order.url)
    data = storage.read_or_none(order.shard)
    if data is None or sha256(data) != order.sha256:
        raise OutputError(f"{storage.url}/{order.shard} is missing or damaged; diffii verify says more")
    table = read_table(data)
    return table if settings.stored else _encoded_anew(table, settings)


def _encoded_anew(table: pa.Table, settings: Settings) -> pa.Table:
    def again(image: dict[str, Any], sample_id: str) -> dict[str, Any]:
        pixels = np.asarray(decode(image["bytes"]), dtype=np.uint8)
        data = encode(pixels, settings.encoding, settings.quality, settings.mark)
        return {"bytes": data, "path": f"{sample_id}.{extension(settings.encoding)}"}

    with ThreadPoolExecutor(_ENCODERS) as pool:
        images = list(pool.map(again, table["image"].to_pylist(), table["sample_id"].to_pylist()))
    column = table.schema.get_field_index("image")
    field = table.schema.field(column)
    return table.set_column(column, field, pa.array(images, field.type))


def _publish(storage: Storage, name: str, data: bytes) -> None:
    if not storage.put_once(name, data) and storage.read(name) != data:
        raise OutputError(
            f"{storage.url}/{name} exists and is not what this export would write there: it was made by another "
            "version, or by hand. Export to a new place"
        )


def _dump(record: dict[str, Any]) -> bytes:
    return (json.dumps(record, sort_keys=True, ensure_ascii=False) + "\n").encode()
