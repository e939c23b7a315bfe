"""The user's labelled images, frozen as a manifest that the plan is made from.

An image's identity is the SHA-256 of its bytes, never its name.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property

import pyarrow as pa

from diffii.dataset.tables import read_table, write_table
from diffii.errors import SourceError
from diffii.hashing import digest, sha256
from diffii.images import UnreadableImage
from diffii.sources import opener


@dataclass(frozen=True, slots=True)
class SourceImage:
    """One usable image. `where` finds its bytes again below the source's URL."""

    sha256: str
    label: int
    where: str
    caption: str = ""
    """A sentence about the image, if the source brings one."""
    context: str = ""
    """What it shows besides its subject, if the source says so."""


@dataclass(frozen=True, slots=True)
class Skipped:
    """A file that is not used, and why."""

    where: str
    reason: str


@dataclass(frozen=True)
class Source:
    """All usable images, by class; within a class in the order of their hashes."""

    url: str
    classes: tuple[str, ...]
    images: tuple[SourceImage, ...]
    skipped: tuple[Skipped, ...] = field(default=())
    notes: tuple[Skipped, ...] = field(default=())
    """What a user should hear of files that are used."""

    @cached_property
    def by_class(self) -> tuple[tuple[SourceImage, ...], ...]:
        rows: list[list[SourceImage]] = [[] for _ in self.classes]
        for image in self.images:
            rows[image.label].append(image)
        return tuple(tuple(row) for row in rows)

    @cached_property
    def digest(self) -> str:
        """What the images are, wherever they lie."""
        return digest(list(self.classes), [[image.sha256, image.label] for image in self.images])

    def to_parquet(self) -> bytes:
        columns = {
            "sha256": [image.sha256 for image in self.images],
            "label": pa.array([image.label for image in self.images], pa.int32()),
            "where": [image.where for image in self.images],
        }
        # A manifest without words is what it was before there were any.
        for name in ("caption", "context"):
            if any(getattr(image, name) for image in self.images):
                columns[name] = [getattr(image, name) for image in self.images]
        return write_table(pa.table(columns))

    @classmethod
    def from_parquet(cls, url: str, classes: Iterable[str], data: bytes) -> Source:
        rows = read_table(data).to_pylist()
        return cls(url, tuple(classes), tuple(SourceImage(**row) for row in rows))


def iter_bytes(source: Source, images: Iterable[SourceImage]) -> Iterator[bytes]:
    """The bytes of images again, checked against their hashes. Raises SourceError when a file has changed or gone."""
    read = opener(source.url)
    for image in images:
        try:
            data = read(image.where)
        except (OSError, UnreadableImage) as error:
            raise SourceError(f"{source.url}/{image.where} cannot be read any more ({error}); restore it") from error
        if sha256(data) != image.sha256:
            raise SourceError(f"{source.url}/{image.where} has changed since the run began; restore it")
        yield data
