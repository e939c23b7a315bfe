"""From labelled images of any layout to a `Source`: every image found, hashed, and decoded once.

A file that cannot be used is skipped, by name and with the reason; it never ends a run and never takes another with it.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import lru_cache

from diffii.errors import OutputError, SourceError
from diffii.hashing import sha256
from diffii.images import Limits, UnreadableImage, decode, remark
from diffii.sources import AS_USUAL, Entry, Listing, Reader, Splits, open_source, settled
from engine.config import SourceConfig
from engine.source import Skipped, Source, SourceImage

_OF_ONE_FILE = frozenset({errno.EACCES, errno.EPERM, errno.ELOOP, errno.ENAMETOOLONG})
LARGE = 10_000
"""Images from which on a scan is worth tasks of Ray, where one is up: fewer take seconds in threads."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What of a source is meant, and what of it is accepted."""

    splits: Splits = AS_USUAL
    images: str = ""
    """What the paths of a list lie below."""
    limits: Limits = field(default_factory=Limits)

    @classmethod
    def of(cls, config: SourceConfig) -> Reading:
        """As configured: the part that is expanded."""
        return cls(
            splits=Splits(config.split, config.holdout_split),
            images=config.images,
            limits=Limits(config.max_pixels, config.max_bytes, config.min_edge),
        )


@dataclass(frozen=True, slots=True)
class Look:
    """What looking at one image's bytes gave: a hash, or why there is none."""

    sha256: str = ""
    reason: str = ""
    note: str = ""


LookAt = Callable[[str, str, list[str], Limits], Iterable[Look]]
"""(URL, what a list's paths lie below, places, limits) -> a look at each, in their order."""


Eye = Callable[[Reader, str, Limits], Look]
"""Looks at one image: `look`."""


def read_source(url: str, reading: Reading | None = None, threads: int = 8, elsewhere: LookAt | None = None) -> Source:
    """Scan a source of any layout that `diffii.sources` reads. The result does not depend on who looks at the images.

    Where there are many, `elsewhere` looks at them instead of threads of this process. Raises SourceError when there
    is nothing to expand, or a split is not there.
    """
    reading = reading or Reading()
    url = settled(url)
    reader = open_source(url, reading.images)
    listing = _utf8(reader.listing(reading.splits), url)
    places = [entry.where for entry in listing.entries]
    if elsewhere is not None and len(places) >= LARGE:
        looks = elsewhere(url, reading.images, places, reading.limits)
    else:
        looks = look_here(reader, places, reading.limits, threads)
    source = _source(url, listing, looks, _held_out(reader, reading.splits.without, threads))
    return _name_empty_classes(source)


def look_here(reader: Reader, places: Iterable[str], limits: Limits, threads: int) -> Iterator[Look]:
    """Read, hash and decode images in threads of this process."""
    with ThreadPoolExecutor(threads) as pool:
        yield from pool.map(lambda where: look(reader, where, limits), places)


def look(reader: Reader, where: str, limits: Limits) -> Look:
    """The content hash of a usable image, or why it is not usable."""
    try:
        data = _bytes(reader, where)
        decode(data, limits)
    except UnreadableImage as error:
        return Look(reason=str(error))
    except OSError as error:
        return Look(reason=f"cannot be read: {error}")
    return Look(sha256(data), note=remark(data))


def look_at_part(url: str, images: str, places: Sequence[str], limits: Limits, eye: Eye = look) -> list[Look]:
    """A look at each of some places, for a process that has not read the source (`engine.scan_tasks`)."""
    reader = _reader(url, images)
    return [eye(reader, where, limits) for where in places]


@lru_cache(maxsize=2)
def _reader(url: str, images: str) -> Reader:
    return open_source(url, images)


def _bytes(reader: Reader, where: str) -> bytes:
    try:
        return reader.read(where)
    except OutputError as error:
        # Storage that fails ends the scan; a missing right or a link to itself is about this file alone.
        cause = error.__cause__
        if isinstance(cause, OSError) and cause.errno in _OF_ONE_FILE:
            raise cause from error
        raise


def _source(url: str, listing: Listing, looks: Iterable[Look], heldout: dict[str, str]) -> Source:
    images: dict[str, SourceImage] = {}
    contradicted: dict[str, set[str]] = {}
    skipped = [Skipped(where, reason) for where, reason in listing.skipped]
    notes: list[Skipped] = []
    for entry, seen in zip(listing.entries, looks, strict=True):
        if seen.reason:
            skipped.append(Skipped(entry.where, seen.reason))
            continue
        if seen.sha256 in heldout:
            skipped.append(Skipped(entry.where, f"held out: the same image as {heldout[seen.sha256]}"))
            continue
        image = SourceImage(seen.sha256, entry.label, entry.where, entry.caption, entry.context)
        first = images.setdefault(image.sha256, image)
        if first is image:
            notes += [Skipped(image.where, seen.note)] if seen.note else []
        elif first.label == image.label:
            skipped.append(Skipped(image.where, f"the same image as {first.where}"))
        else:
            contradicted.setdefault(image.sha256, {first.where}).add(image.where)
    for key, places in sorted(contradicted.items()):
        del images[key]
        # Which label is right cannot be known here, and a wrong one teaches the classifier a lie.
        reason = f"one image under different labels: {', '.join(sorted(places))}"
        skipped += [Skipped(place, reason) for place in sorted(places)]
    ordered = tuple(sorted(images.values(), key=lambda image: (image.label, image.sha256)))
    used = {image.where for image in ordered}
    skipped.sort(key=lambda skip: skip.where)
    told = tuple(note for note in notes if note.where in used)
    return Source(url, listing.classes, ordered, tuple(skipped), told)


def _held_out(reader: Reader, split: str, threads: int) -> dict[str, str]:
    """SHA-256 -> place of every image of the split that is kept apart: a copy of one is not expanded either."""
    if not split:
        return {}

    def name(entry: Entry) -> tuple[str, str] | None:
        try:
            return sha256(_bytes(reader, entry.where)), entry.where
        except (UnreadableImage, OSError):
            return None

    with ThreadPoolExecutor(threads) as pool:
        found = pool.map(name, reader.listing(Splits(wanted=split)).entries)
        return dict(pair for pair in found if pair is not None)


def _utf8(listing: Listing, url: str) -> Listing:
    """The listing without names that no file of ours could hold. Raises SourceError for such a class."""
    for name in listing.classes:
        if shown(name) != name:
            raise SourceError(f"{url}: the class {shown(name)} has a name that is not UTF-8; rename it")
    good = [entry for entry in listing.entries if shown(entry.where) == entry.where]
    bad = [entry for entry in listing.entries if shown(entry.where) != entry.where]
    skipped = [(shown(where), reason) for where, reason in listing.skipped]
    skipped += [(shown(entry.where), "its name is not UTF-8; rename it") for entry in bad]
    return Listing(listing.classes, good, skipped)


def shown(name: str) -> str:
    """A name as it can be written; file systems hold any bytes."""
    return name.encode("utf-8", "backslashreplace").decode()


def _name_empty_classes(source: Source) -> Source:
    """Keep every class in its place, so that labels survive by index; name those that have nothing to expand."""
    if not source.images:
        some = "; ".join(f"{skip.where}: {skip.reason}" for skip in source.skipped[:3])
        raise SourceError(f"{source.url} holds no usable image" + (f" ({some})" if some else ""))
    named = {skip.where for skip in source.skipped}
    empty = tuple(
        Skipped(f"{name}/", "no usable image is left in this class")
        for name, images in zip(source.classes, source.by_class, strict=True)
        if not images and f"{name}/" not in named
    )
    return replace(source, skipped=source.skipped + empty)
