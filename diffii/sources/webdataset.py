"""WebDataset tars: members of one sample stand together and share a key, `<key>.jpg`, `<key>.cls`, `<key>.json`.

The label is in `cls` (an index, or a name), or in `json` (`label`, `class_name`); a caption is in `txt` or in `json`. A
place is `shard.tar#member@offset+size`: any image is one range of bytes, on a disk or in an object store.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from diffii.dataset.storage import Storage
from diffii.errors import SourceError
from diffii.images import SUFFIXES
from diffii.sources.interface import CAPTION_COLUMNS, CONTEXT_COLUMNS, Entry, Listing, first_of, told, words
from diffii.sources.labels import Told, as_index, resolve
from diffii.sources.paths import INDEX_COLUMNS, NAME_COLUMNS
from diffii.sources.splits import AS_USUAL, Splits, is_one, shards
from diffii.sources.tar import DamagedTar, Member, members

SUFFIX = ".tar"
PACKED = (".tar.gz", ".tgz", ".tar.zst", ".tar.bz2", ".tar.xz")
_MAX_WORDS = 2**20
"""Bytes of a `cls`, `json` or `txt` member at most."""
_TARS = 8
"""Read at once: of a tar on an object store the scan mostly waits."""
_PLACE = re.compile(r"(.*?\.tar)#(.*)@(\d+)\+(\d+)", re.DOTALL)


@dataclass(slots=True)
class _Found:
    """What one tar holds."""

    images: list[tuple[str, Told, str, str]] = field(default_factory=list)
    """(place, class, caption, context)."""
    skipped: list[tuple[str, str]] = field(default_factory=list)


class WebDataset:
    """Images and labels in the tars of a folder, or in one tar."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._one = is_one(storage, SUFFIX)
        self._files = shards(storage, SUFFIX)

    def listing(self, splits: Splits = AS_USUAL) -> Listing:
        url = self._storage.url
        chosen = splits.chosen(list(dict.fromkeys(self._files.values())), url)
        names = [name for name, split in self._files.items() if split in chosen]
        with ThreadPoolExecutor(_TARS) as pool:
            parts = list(pool.map(self._scan, names))
        found = [image for part in parts for image in part.images]
        classes, labels = resolve([told for _, told, _, _ in found], url)
        listing = Listing(classes, skipped=[skip for part in parts for skip in part.skipped])
        for (where, _, caption, context), label in zip(found, labels, strict=True):
            if label is None:
                listing.skipped.append((where, "the sample has no label: no .cls, and no label or class_name in .json"))
            else:
                listing.entries.append(Entry(where, label, caption, context))
        return listing

    def read(self, where: str) -> bytes:
        match = _PLACE.fullmatch(where)
        if match is None:
            raise SourceError(f"{self._storage.url}: {where} is no place in a tar")
        name, offset, size = match[1], int(match[3]), int(match[4])
        return self._storage.read_range("" if self._one else name, offset, offset + size)

    def _scan(self, name: str) -> _Found:
        found = _Found()
        place = "" if self._one else name
        try:
            length = int(self._storage.fs.size(self._storage.path(place)) or 0)
            with self._storage.open(place) as file:
                self._samples(file, length, name, found)
        except (DamagedTar, OSError) as error:
            raise SourceError(
                f"{self._storage.url}: {name} is not a whole tar ({error}); copy it again, or take it out of the "
                "source: nothing else is lost"
            ) from error
        return found

    def _samples(self, file: Any, length: int, name: str, found: _Found) -> None:
        key, sample, faulty = "", {}, False

        def content(member: Member) -> bytes:
            file.seek(member.offset)
            return file.read(member.size)

        for member in members(file, length):
            folder, mark, base = member.name.rpartition("/")
            stem, dot, extension = base.partition(".")
            if not stem or (folder + mark).startswith("__MACOSX/"):
                continue
            if (now := f"{folder}{mark}{stem}") != key:
                _close(name, key, sample, faulty, content, found)
                key, sample, faulty = now, {}, False
            if member.fault:
                found.skipped.append((f"{name}#{member.name}", member.fault))
                faulty = True
            elif dot:
                sample[extension.lower()] = member
        _close(name, key, sample, faulty, content, found)


def _close(
    tar: str, key: str, sample: dict[str, Member], faulty: bool, content: Callable[[Member], bytes], found: _Found
) -> None:
    """A sample whose members have all been seen."""
    images = [name for name in sample if f".{name.rpartition('.')[2]}" in SUFFIXES]
    if not images:
        # What was wrong with its image has been said.
        if sample and not faulty:
            found.skipped.append((f"{tar}#{key}", "the sample has no image"))
        return
    # `image.png` beside `mask.seg.png`: the shortest extension is the image's.
    member = sample[min(images, key=lambda name: (name.count("."), name))]
    where = f"{tar}#{member.name}@{member.offset}+{member.size}"
    try:
        told, caption, context = _words(sample, content)
    except ValueError as error:
        found.skipped.append((where, str(error)))
    else:
        found.images.append((where, told, caption, context))


def _words(sample: dict[str, Member], content: Callable[[Member], bytes]) -> tuple[Told, str, str]:
    """(class, caption, context) of a sample. Raises ValueError with the reason when a member is no such thing."""
    texts: dict[str, str] = {}
    for name in ("cls", "cls.txt", "json", "txt", "caption"):
        if (member := sample.get(name)) is None:
            continue
        if member.size > _MAX_WORDS:
            raise ValueError(f"its .{name} of {member.size} bytes is more than the limit of {_MAX_WORDS}")
        try:
            texts[name] = content(member).decode("utf-8-sig").strip()
        except UnicodeDecodeError:
            raise ValueError(f"its .{name} is not UTF-8 text") from None
    about = _about(texts["json"]) if "json" in texts else {}
    said = texts.get("cls") or texts.get("cls.txt") or None
    index, name = as_index(said), None if as_index(said) is not None else said
    if index is None and name is None:
        column = first_of(list(about), INDEX_COLUMNS)
        value = about[column] if column else None
        index = as_index(value)
        name = value if isinstance(value, str) and index is None else None
    if name is None and (column := first_of(list(about), NAME_COLUMNS)) is not None:
        name = about[column] if isinstance(about[column], str) and about[column] else None
    caption = texts.get("txt") or texts.get("caption") or ""
    return (index, name), words(caption) or told(about, CAPTION_COLUMNS), told(about, CONTEXT_COLUMNS)


def _about(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        raise ValueError("its .json is no JSON") from None
    if not isinstance(found, dict):
        raise ValueError("its .json is no JSON object")
    return found
