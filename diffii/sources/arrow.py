"""A directory that `datasets` saved with `save_to_disk`: Arrow streams, of one split or with a folder per split.

A place is `file.arrow#row@offset+k`: row k of the record batch that begins at byte `offset`.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pyarrow as pa

from diffii.dataset.storage import Storage
from diffii.errors import SourceError
from diffii.images import UnreadableImage
from diffii.sources.interface import (
    CAPTION_COLUMNS,
    CONTEXT_COLUMNS,
    IMAGE_COLUMNS,
    LABEL_COLUMNS,
    Listing,
    first_of,
    words,
)
from diffii.sources.labels import listed, names_in
from diffii.sources.splits import AS_USUAL, Splits

STATE, INFO, DICTIONARY = "state.json", "dataset_info.json", "dataset_dict.json"
_PLACE = re.compile(r"(.*)#\d+@(\d+)\+(\d+)", re.DOTALL)
_END = b"\xff\xff\xff\xff\0\0\0\0"
"""Ends a stream; a file that was cut off between two batches ends without it."""


def is_saved(storage: Storage) -> bool:
    return bool({STATE, DICTIONARY}.intersection(storage.names()))


class SavedDataset:
    """Images and labels of a saved `Dataset` or `DatasetDict`. Raises SourceError naming a file that is damaged."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._lock = threading.Lock()
        self._open: dict[str, tuple[Any, pa.Schema]] = {}
        self._held: tuple[str, int, Any] | None = None

    def listing(self, splits: Splits = AS_USUAL) -> Listing:
        rows: list[tuple[str, Any, str, str]] = []
        names: list[str] | None = None
        for folder in self._folders(splits):
            features = self._json(f"{folder}{INFO}").get("features")
            for item in self._json(f"{folder}{STATE}").get("_data_files") or []:
                name = f"{folder}{item['filename']}" if isinstance(item, dict) else ""
                if not name or "/" in item["filename"]:
                    raise SourceError(f"{self._storage.url}: {folder}{STATE} names no Arrow files; save it again")
                for place, offset, table in self._batches(name):
                    columns = table.schema.names
                    label = first_of(columns, LABEL_COLUMNS)
                    if label is None or first_of(columns, IMAGE_COLUMNS) is None:
                        missing = "label" if label is None else "image"
                        raise SourceError(
                            f"{self._storage.url}: {name} has no column {missing!r}; its columns are "
                            f"{', '.join(columns)}"
                        )
                    names = names or names_in(features, label)
                    told = [self._words(table, wanted) for wanted in (CAPTION_COLUMNS, CONTEXT_COLUMNS)]
                    for row, values in enumerate(zip(table.column(label).to_pylist(), *told, strict=True)):
                        rows.append((f"{name}#{place + row}@{offset}+{row}", *values))
        return listed(rows, names, self._storage.url)

    def read(self, where: str) -> bytes:
        match = _PLACE.fullmatch(where)
        if match is None:
            raise SourceError(f"{self._storage.url}: {where} is no place in an Arrow file")
        name, offset, row = match[1], int(match[2]), int(match[3])
        with self._lock, self._whole(name):
            if self._held is None or self._held[:2] != (name, offset):
                self._held = (name, offset, self._batch(name, offset))
            column = self._held[2]
            value = column[row].as_py() if row < len(column) else None
        value = value.get("bytes") if isinstance(value, dict) else value
        if not isinstance(value, bytes):
            raise UnreadableImage("the row holds no image bytes")
        return value

    def _folders(self, splits: Splits) -> list[str]:
        """Folders of the splits that are meant, as beginnings of names."""
        there = self._storage.names()
        if DICTIONARY not in there:
            splits.chosen([""], self._storage.url)
            return [""]
        named = [str(name) for name in self._json(DICTIONARY).get("splits") or []]
        if any("/" in name or name == ".." for name in named):
            raise SourceError(f"{self._storage.url}: {DICTIONARY} names a split with a slash in it; save it again")
        return [f"{name}/" for name in splits.chosen(named, self._storage.url)]

    def _batches(self, name: str) -> Iterator[tuple[int, int, pa.RecordBatch]]:
        """(rows before, offset, batch) of every batch, without holding more than one."""
        with self._whole(name):
            file, schema = self._file(name)
            file.seek(0)
            pa.ipc.read_message(file)
            rows = 0
            while True:
                offset = file.tell()
                try:
                    message = pa.ipc.read_message(file)
                except EOFError:
                    file.seek(offset)
                    if file.read(len(_END)) != _END:
                        raise pa.ArrowInvalid("it ends too early") from None
                    break
                batch = pa.ipc.read_record_batch(message, schema)
                yield rows, offset, batch
                rows += batch.num_rows

    def _batch(self, name: str, offset: int) -> Any:
        file, schema = self._file(name)
        file.seek(offset)
        batch = pa.ipc.read_record_batch(pa.ipc.read_message(file), schema)
        return batch.column(first_of(schema.names, IMAGE_COLUMNS) or "image")

    def _file(self, name: str) -> tuple[Any, pa.Schema]:
        if name not in self._open:
            # Mapped, a row costs its own bytes; else those of its batch.
            local = self._storage.is_local
            file = pa.memory_map(self._storage.path(name)) if local else self._storage.open(name)
            self._open[name] = (file, pa.ipc.read_schema(pa.ipc.read_message(file)))
        return self._open[name]

    def _json(self, name: str) -> dict[str, Any]:
        try:
            found = json.loads(self._storage.read(name))
        except (OSError, ValueError) as error:
            raise SourceError(f"{self._storage.url}: {name} cannot be read ({error}); save it again") from error
        return found if isinstance(found, dict) else {}

    @staticmethod
    def _words(table: pa.RecordBatch, wanted: tuple[str, ...]) -> list[str]:
        column = first_of(table.schema.names, wanted)
        return [words(value) for value in table.column(column).to_pylist()] if column else [""] * table.num_rows

    @contextmanager
    def _whole(self, name: str) -> Iterator[None]:
        try:
            yield
        except (pa.ArrowException, OSError, EOFError) as error:
            raise SourceError(
                f"{self._storage.url}: {name} is not a whole Arrow stream ({error}); copy or save it again"
            ) from error
