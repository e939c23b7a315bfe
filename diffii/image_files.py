"""Where a source image's bytes are: a file below a URL, or a row of a Parquet file below it (`file.parquet#row`)."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from diffii.dataset.storage import Storage
from diffii.dataset.tables import open_table
from diffii.errors import SourceError
from diffii.images import UnreadableImage

IMAGE_COLUMNS = ("image", "img")
LABEL_COLUMNS = ("label", "labels", "fine_label", "class", "class_name")
NO_IMAGES = "metadata.parquet"
"""Beside an image folder, `datasets` keeps more columns about its images in a file of this name."""


def opener(url: str) -> Callable[[str], bytes]:
    """A function from an image's place below `url` to its bytes; safe to call from several threads."""
    storage = Storage(url)
    return ParquetImages(storage).read if is_parquet(storage) else storage.read


def is_parquet(storage: Storage) -> bool:
    return bool(_parquet_files(storage))


class ParquetImages:
    """Images and labels of one Parquet file or a folder of them, in the layout of Hugging Face `datasets`.

    `image` is a struct with `bytes`, or plain binary; `label` an integer (names from the schema's metadata when they
    are there) or a string. Raises SourceError naming the file when a column is missing or the file is damaged.
    """

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._files = _parquet_files(storage)
        self._lock = threading.Lock()
        self._open: dict[str, pq.ParquetFile] = {}
        self._group: tuple[str, int, pa.ChunkedArray] | None = None
        self.classes: list[str] = []
        self.unlabelled: list[str] = []

    def labels(self) -> list[tuple[str, int]]:
        """(place, label) of every row; fills `classes`, and `unlabelled` with the rows that have none."""
        places: list[str] = []
        values: list[Any] = []
        names: list[str] | None = None
        for name in self._files:
            file = self._file(name)
            column = _column(file, LABEL_COLUMNS, name, self._storage.url)
            _column(file, IMAGE_COLUMNS, name, self._storage.url)
            names = names or _class_names(file, column)
            with self._whole(name):
                values += file.read(columns=[column], use_threads=False).column(0).to_pylist()
            places += [f"{name}#{row}" for row in range(file.metadata.num_rows)]
        self.classes = names or sorted({str(value) for value in values if value is not None}, key=_natural)
        index = {name: position for position, name in enumerate(self.classes)}
        rows: list[tuple[str, int]] = []
        for place, value in zip(places, values, strict=True):
            label = value if names and isinstance(value, int) else index.get(str(value), -1)
            # A class may be called `None`.
            if value is not None and 0 <= label < len(self.classes):
                rows.append((place, label))
            else:
                self.unlabelled.append(place)
        return rows

    def read(self, place: str) -> bytes:
        """Raises UnreadableImage when the row holds no image bytes, SourceError when it cannot be read at all."""
        name, _, number = place.rpartition("#")
        with self._lock:
            value = self._row(name, int(number))
        if isinstance(value, dict):
            value = value.get("bytes")
        if not isinstance(value, bytes):
            raise UnreadableImage("the row holds no image bytes")
        return value

    def _row(self, name: str, row: int) -> Any:
        file = self._file(name)
        group = 0
        if row >= file.metadata.num_rows:
            raise SourceError(f"{self._storage.url}: {name} has no row {row} any more; restore the file")
        while row >= file.metadata.row_group(group).num_rows:
            row -= file.metadata.row_group(group).num_rows
            group += 1
        if self._group is None or self._group[:2] != (name, group):
            column = _column(file, IMAGE_COLUMNS, name, self._storage.url)
            with self._whole(name):
                self._group = (name, group, file.read_row_group(group, columns=[column], use_threads=False).column(0))
        return self._group[2][row].as_py()

    def _file(self, name: str) -> pq.ParquetFile:
        if name not in self._open:
            with self._whole(name):
                # A source that is one Parquet file has no name below its own URL.
                self._open[name] = open_table(self._storage.open("" if _is_one_file(self._storage) else name))
        return self._open[name]

    @contextmanager
    def _whole(self, name: str) -> Iterator[None]:
        try:
            yield
        except (pa.ArrowException, OSError) as error:
            raise SourceError(f"{self._storage.url}: {name} is not a whole Parquet file ({error})") from error


def _is_one_file(storage: Storage) -> bool:
    # Some writers make a folder of this name, with parts in it.
    return storage.root.endswith(".parquet") and not storage.fs.isdir(storage.root)


def _parquet_files(storage: Storage) -> list[str]:
    if _is_one_file(storage):
        return [storage.root.rsplit("/", 1)[-1]]
    for folder in ("", "data"):
        found = [name for name in storage.names(folder) if name.endswith(".parquet")]
        found = [name for name in found if not name.startswith((".", "_")) and name != NO_IMAGES]
        # Splits are told by the file's name, as the hub does; with no such names every file is meant.
        expand = [name for name in found if name.startswith("train")] or found
        if expand:
            return [f"{folder}/{name}" if folder else name for name in expand]
    return []


def _column(file: pq.ParquetFile, wanted: tuple[str, ...], name: str, url: str) -> str:
    columns = file.schema_arrow.names
    for column in wanted:
        if column in columns:
            return column
    raise SourceError(f"{url}: {name} has no column {wanted[0]!r}; its columns are {', '.join(columns)}")


def _class_names(file: pq.ParquetFile, column: str) -> list[str] | None:
    metadata = file.schema_arrow.metadata or {}
    try:
        return list(json.loads(metadata[b"huggingface"])["info"]["features"][column]["names"])
    except (KeyError, ValueError, TypeError):
        return None


def _natural(text: str) -> tuple[bool, int, str]:
    # The text itself comes last, so that `7` and `07` have one order, whatever the order of a set.
    return (False, int(text), text) if text.isdecimal() else (True, 0, text)
