"""ImageFolder: a folder per class with a file per image, for people and for torchvision, and a table of all rows.

A class may be called `a/b` or `.`, and two classes may differ in case alone. So folders have names that are safe on any
file system, and `classes.json` says which class each one is.
"""

from __future__ import annotations

import io
import json
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from typing import ClassVar

import pyarrow as pa
import pyarrow.parquet as pq

from diffii.dataset.layout import OWN
from diffii.dataset.tables import read_table, write_table
from diffii.hashing import sha256
from engine.formats.parquet import features
from engine.formats.part import Origin, Part, Records, Written

FOLDER = "train"
METADATA = f"{FOLDER}/metadata.parquet"
CLASSES = "classes.json"
_ROWS = f"{OWN}/rows"
_LONGEST = 120
"""Bytes of a folder's name, of 255 that file systems allow."""
_RESERVED = {"con", "prn", "aux", "nul", *(f"{port}{n}" for port in ("com", "lpt") for n in range(1, 10))}


class ImageFolder:
    """`train/<safe class>/<sample id>.<ext>`; real and synthetic images side by side, as torchvision reads them."""

    name: ClassVar[str] = "imagefolder"
    patterns: ClassVar[Mapping[Origin, str]] = {"data": f"{FOLDER}/**"}

    def write(self, part: Part) -> Written:
        folders = safe_names(part.classes)
        rows = part.table.to_pylist()
        names = [f"{folders[row['label']]}/{row['sample_id']}.{part.extension}" for row in rows]
        files = [(f"{FOLDER}/{name}", row["image"]["bytes"]) for name, row in zip(names, rows, strict=True)]
        narrow = _without_uint64(part.table.drop_columns(["image"]))
        narrow = narrow.add_column(0, "file_name", pa.array(names, pa.string()))
        table = f"{_ROWS}/{part.origin}-{part.number:05d}.parquet"
        return Written(files=[*files, (table, write_table(narrow.replace_schema_metadata()))], facts={"rows": table})

    def index(self, records: Records) -> Iterator[tuple[str, bytes]]:
        folders = dict(zip(safe_names(records.classes), records.classes, strict=True))
        yield CLASSES, (json.dumps(folders, ensure_ascii=False, indent=1) + "\n").encode()
        if records.facts:
            tables = [read_table(records.storage.read(facts["rows"])) for facts in records.facts]
            whole = pa.concat_tables(tables).combine_chunks()
            # `datasets` then knows the classes by their own names, not by their folders'.
            whole = whole.replace_schema_metadata({"huggingface": features(records.classes, whole.schema)})
            buffer = io.BytesIO()
            pq.write_table(whole, buffer, compression="zstd")
            yield METADATA, buffer.getvalue()

    def usage(self, url: str, extension: str) -> str:
        return f'torchvision.datasets.ImageFolder("{url}/{FOLDER}")   # its classes are the keys of {CLASSES}'


def _without_uint64(table: pa.Table) -> pa.Table:
    """Such numbers as text: `datasets` takes what is beside images through Python, and fails above 2^63."""
    for place, column in enumerate(table.schema):
        if column.type == pa.uint64():
            table = table.set_column(place, column.name, table[column.name].cast(pa.string()))
    return table


def safe_names(classes: Sequence[str]) -> list[str]:
    """A folder's name for each class, all different even where case is ignored; plain names stay as they are."""
    found: list[str] = []
    taken: set[str] = set()
    for name in classes:
        safe = _quoted(name)
        if safe.lower() in taken or not safe or len(safe.encode()) > _LONGEST or safe.lower() in _RESERVED:
            safe = f"{safe[:40]}%{sha256(name.encode())[:16]}"
        taken.add(safe.lower())
        found.append(safe)
    return found


def _quoted(name: str) -> str:
    """Percent-encoded but for letters, digits, and what no file system, shell or glob takes for something else."""
    composed = unicodedata.normalize("NFC", name) == name
    plain = [character.isalnum() and (composed or character.isascii()) for character in name]
    inner = range(1, len(name) - 1)
    kept = [
        letter or character in "_-+" or (character in " .," and place in inner)
        for place, (character, letter) in enumerate(zip(name, plain, strict=True))
    ]
    return "".join(
        character if keep else "".join(f"%{byte:02X}" for byte in character.encode())
        for character, keep in zip(name, kept, strict=True)
    )
