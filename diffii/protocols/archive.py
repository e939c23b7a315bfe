"""A published data set as it lies on disk after its archives were unpacked, and whether all of it is there."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from scipy.io import loadmat
from scipy.io.matlab import MatReadError

from diffii.dataset.storage import Storage
from diffii.errors import OutputError, SourceError
from diffii.protocols.task import Sample

Counts = Mapping[str, int]
"""Part -> how many images it must have; `classes` -> how many classes."""


@dataclass(frozen=True)
class Archive:
    """Class names, and the samples of each part (`train`, `test`, ...) in the archive's own order."""

    classes: tuple[str, ...]
    parts: Mapping[str, tuple[Sample, ...]]


@dataclass(frozen=True)
class Layout:
    """A data set by name: how to know it, what it must hold, where it comes from."""

    name: str
    folder: str
    """What the archive unpacks to. A user may give it or the folder that holds it."""
    marker: str
    """A file that is always there, below `folder`."""
    unpack: str
    """What to unpack, for the mend in a message."""
    counts: Counts


class Folder:
    """An unpacked archive: its texts, tables and images. Raises SourceError naming the file when one is missing."""

    def __init__(self, url: str, layout: Layout) -> None:
        self.layout = layout
        self._names: dict[str, set[str]] = {}
        try:
            self._storage = Storage(url)
        except OutputError as error:
            raise SourceError(str(error)) from error
        given = self._storage.url
        self.url = given if self.has(layout.marker) else f"{given}/{layout.folder}"
        if self.url != given:
            self._storage = Storage(self.url)
            self._names.clear()
            if not self.has(layout.marker):
                raise SourceError(
                    f"{given}: neither {layout.marker} nor {layout.folder}/{layout.marker} is there; "
                    f"give the folder that {layout.unpack} was unpacked in"
                )

    def has(self, name: str) -> bool:
        """Whether this file is there. A folder is listed once: a data set has thousands of images in one."""
        folder, _, file = name.rpartition("/")
        if folder not in self._names:
            self._names[folder] = set(self._storage.names(folder))
        return file in self._names[folder]

    def lines(self, name: str) -> list[str]:
        """The lines of a UTF-8 text that are not empty."""
        try:
            text = self._read(name).decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise self.wrong(name, f"is no UTF-8 text ({error.reason})") from error
        return [line.strip() for line in text.splitlines() if line.strip()]

    def table(self, name: str, columns: int) -> list[list[str]]:
        """Lines of a text cut at spaces into so many columns; the last one keeps its spaces."""
        rows = [line.split(maxsplit=columns - 1) for line in self.lines(name)]
        for number, row in enumerate(rows, start=1):
            if len(row) != columns:
                raise self.wrong(name, f"has {len(row)} columns instead of {columns} in line {number}")
        return rows

    def numbered(self, name: str) -> dict[int, str]:
        """A text of two columns, number and value."""
        return {self.number(name, key): value for key, value in self.table(name, 2)}

    def number(self, name: str, text: str) -> int:
        if not text.isascii() or not text.isdigit():
            raise self.wrong(name, f"has {text!r} where a number belongs")
        return int(text)

    def matlab(self, name: str, variables: Iterable[str]) -> dict[str, Any]:
        """Variables of a MATLAB file of version 5, squeezed."""
        data = self._read(name)
        try:
            found = loadmat(io.BytesIO(data), squeeze_me=True)
        except (MatReadError, ValueError, TypeError, NotImplementedError, OSError, EOFError) as error:
            raise self.wrong(name, f"is no MATLAB file of version 5 ({error})") from error
        if missing := [variable for variable in variables if variable not in found]:
            raise self.wrong(name, f"has no variable {missing[0]!r}")
        return found

    def samples(self, rows: Iterable[tuple[str, int, int]]) -> tuple[Sample, ...]:
        """(file below the folder, label, group) -> samples; every file must be there."""
        found = list(rows)
        missing = [name for name, _, _ in found if not self.has(name)]
        if missing:
            more = f", as are {len(missing) - 1} other images that are listed" if len(missing) > 1 else ""
            raise self.wrong(missing[0], f"is missing{more}")
        return tuple(Sample(f"{self.url}/{name}", label, group) for name, label, group in found)

    def wrong(self, name: str, what: str) -> SourceError:
        return SourceError(f"{self.url}/{name} {what}; unpack {self.layout.unpack} again")

    def _read(self, name: str) -> bytes:
        data = self._storage.read_or_none(name)
        if data is None:
            raise self.wrong(name, "is missing")
        return data


def read_archive(url: str, layout: Layout, reader: Callable[[Folder], Archive], counts: Counts | None) -> Archive:
    """Read and count. `counts` None accepts whatever is there, for a reduced copy. Raises SourceError."""
    folder = Folder(url, layout)
    archive = reader(folder)
    found = {part: len(samples) for part, samples in archive.parts.items()} | {"classes": len(archive.classes)}
    for part, wanted in (counts or {}).items():
        if found.get(part, 0) != wanted:
            what = "classes" if part == "classes" else f"images to {part}"
            raise SourceError(
                f"{folder.url} holds {found.get(part, 0)} {what}; {layout.name} as published has {wanted}. "
                f"Unpack {layout.unpack} again, or pass counts=None if it is reduced on purpose"
            )
    labels = {sample.label for samples in archive.parts.values() for sample in samples}
    if labels and not 0 <= min(labels) <= max(labels) < len(archive.classes):
        raise SourceError(f"{folder.url}: a label lies outside the {len(archive.classes)} classes; unpack it again")
    return archive
