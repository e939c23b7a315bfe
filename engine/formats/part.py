"""What a format is: one stretch of rows in, files out, the same rows giving the same bytes; and an index over them all.

A *part* is one published shard, or a stretch of the real images. Its files follow from its rows alone, so that a data
set which has grown is written on without touching what is there.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, Protocol

import pyarrow as pa

from diffii.dataset.storage import Storage
from diffii.images import Encoding, extension

Origin = Literal["data", "real"]
"""Synthetic rows and real images lie apart, so that who wants the one need not take the other."""


@dataclass(frozen=True, kw_only=True)
class Part:
    """Rows with the columns of a published shard, images encoded as they are to be written."""

    origin: Origin
    number: int
    table: pa.Table
    classes: Sequence[str]
    captions: Sequence[str]
    """Per class: what a caption says before the row's own context."""
    encoding: Encoding

    @property
    def extension(self) -> str:
        return extension(self.encoding)


@dataclass(frozen=True, kw_only=True)
class Written:
    """A part's files in the order in which they are to appear, and what the format's index will ask about it."""

    files: Sequence[tuple[str, bytes]]
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Records:
    """All parts that are written: where they lie, their facts in order, and the class names."""

    storage: Storage
    facts: Sequence[Mapping[str, Any]]
    classes: Sequence[str]


class Format(Protocol):
    """One format. Stateless."""

    name: ClassVar[str]
    patterns: ClassVar[Mapping[Origin, str]]
    """What `datasets.load_dataset` is to read; empty where it reads no such thing."""

    def write(self, part: Part) -> Written:
        """The files of one part."""
        ...

    def index(self, records: Records) -> Iterator[tuple[str, bytes]]:
        """Files over all parts, which are replaced as the data set grows."""
        ...

    def usage(self, url: str, extension: str) -> str:
        """How to read it: lines of code or a command."""
        ...
