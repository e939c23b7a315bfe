"""Tables of words about images: CSV, TSV, JSON lines, or Parquet without images; read row by row."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from typing import Any

import pyarrow as pa

from diffii.dataset.storage import Storage
from diffii.dataset.tables import open_table
from diffii.errors import SourceError

PATH_COLUMNS = ("file_name", "path", "file", "filename", "filepath", "image_path", "image", "img", "url")
TEXT_SUFFIXES = (".csv", ".tsv", ".jsonl")
_METADATA = ("metadata.csv", "metadata.tsv", "metadata.jsonl", "metadata.parquet")
_ROWS = 10_000


def metadata_name(storage: Storage, folder: str = "") -> str:
    """The table that `datasets` keeps beside an image folder; empty when there is none."""
    there = set(storage.names(folder))
    name = next((name for name in _METADATA if name in there), "")
    return f"{folder}/{name}" if folder and name else name


def rows_of(storage: Storage, name: str, file: str | None = None) -> Iterator[dict[str, Any]]:
    """The rows of a table below a URL, by column; bytes are left out.

    `name` is what errors call it, `file` where it is if that is not its name. Raises SourceError naming it.
    """
    place = name if file is None else file
    try:
        with storage.open(place) as opened:
            if name.endswith(".parquet"):
                yield from _of_parquet(opened)
            elif name.endswith(".jsonl"):
                yield from _of_json_lines(opened, name)
            else:
                yield from _of_csv(opened, "\t" if name.endswith(".tsv") else "")
    except UnicodeDecodeError as error:
        raise SourceError(f"{storage.url}: {name} is not UTF-8 text ({error}); save it as UTF-8") from error
    except (csv.Error, ValueError, pa.ArrowException, OSError) as error:
        raise SourceError(f"{storage.url}: {name} is no table that can be read ({error}); mend it") from error


def _of_csv(file: Any, delimiter: str) -> Iterator[dict[str, Any]]:
    text = io.TextIOWrapper(file, encoding="utf-8-sig", newline="")
    if not delimiter:
        head = text.readline()
        text.seek(0)
        delimiter = next((mark for mark in ",;\t" if mark in head), ",")
    for row in csv.DictReader(text, delimiter=delimiter, strict=True):
        yield {(key or "").strip(): value for key, value in row.items() if isinstance(key, str)}


def _of_json_lines(file: Any, name: str) -> Iterator[dict[str, Any]]:
    for number, line in enumerate(io.TextIOWrapper(file, encoding="utf-8-sig"), start=1):
        if not line.strip():
            continue
        row = json.loads(line)
        if not isinstance(row, dict):
            raise ValueError(f"line {number} of {name} is no object")
        yield row


def _of_parquet(file: Any) -> Iterator[dict[str, Any]]:
    table = open_table(file)
    columns = [field.name for field in table.schema_arrow if not _holds_bytes(field.type)]
    for batch in table.iter_batches(_ROWS, columns=columns, use_threads=False):
        yield from batch.to_pylist()


def _holds_bytes(kind: pa.DataType) -> bool:
    if pa.types.is_struct(kind):
        return any(_holds_bytes(field.type) for field in kind)
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind)
