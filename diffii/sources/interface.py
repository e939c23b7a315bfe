"""What every reader of labelled images gives, whatever its layout: places, labels, class names, words, and bytes.

A *place* finds an image again below the source's URL: a path, `file.parquet#row`, `file.tar#member@offset+size`. It is
all that travels to the actors; none of them lists the source again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from diffii.sources.splits import Splits

IMAGE_COLUMNS = ("image", "img")
LABEL_COLUMNS = ("label", "labels", "fine_label", "class", "class_name")
CAPTION_COLUMNS = ("caption", "text")
CONTEXT_COLUMNS = ("context",)
NO_IMAGES = "metadata.parquet"
"""Beside an image folder, `datasets` keeps more columns about its images in a file of this name."""
NO_LABEL = "the row has no label"


@dataclass(frozen=True, slots=True)
class Entry:
    """One image that has a label; nobody has looked at its bytes yet."""

    where: str
    label: int
    """Into `Listing.classes`."""
    caption: str = ""
    """A sentence about the image, if the source brings one."""
    context: str = ""
    """What the image shows besides its subject, if the source says so."""


@dataclass(slots=True)
class Listing:
    """What a source holds, in its own order."""

    classes: tuple[str, ...]
    entries: list[Entry] = field(default_factory=list)
    skipped: list[tuple[str, str]] = field(default_factory=list)
    """(place, reason) of what was found and cannot be an image with a label."""


class Reader(Protocol):
    """One layout of labelled images below one URL. Safe to use from several threads."""

    def listing(self, splits: Splits = ...) -> Listing:
        """Every image of the splits that are meant. Raises SourceError naming the file that makes it impossible."""
        ...

    def read(self, where: str) -> bytes:
        """The bytes of an image. Raises UnreadableImage when there are none, OSError or SourceError when it is gone."""
        ...


def words(value: Any) -> str:
    """A caption out of a column: text, or the first of several; empty when there is none."""
    if isinstance(value, Sequence) and not isinstance(value, (str, bytes)):
        value = value[0] if value else None
    return " ".join(value.split()) if isinstance(value, str) else ""


def told(row: Mapping[str, Any], wanted: Sequence[str]) -> str:
    """The caption in the first of the wanted columns that a row has; empty without one."""
    column = first_of(list(row), wanted)
    return words(row[column]) if column else ""


def first_of(columns: Sequence[str], wanted: Sequence[str]) -> str | None:
    """The first of the wanted columns that is there."""
    return next((name for name in wanted if name in columns), None)
