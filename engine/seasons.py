"""The seasons of a data set as its log tells them, and how a source that was scanned again fits to them.

A source may gain images and classes, and nothing else: what rows were made from stays where it was.
"""

from __future__ import annotations

from dataclasses import replace

from diffii.dataset.history import History
from diffii.errors import OutputError
from engine.growth import Growth
from engine.learned import Learned
from engine.source import Source, SourceImage

CONCEPTS = "concepts_digest"
"""Key of a log's identity: what was learned from the first images."""


def learned_of(history: History, season: int | None = None) -> Learned | None:
    """What was learned up to a season, by default the newest; None when the log is still to be begun."""
    first = history.opening
    if first is None:
        return None
    growths = history.growths[:season]
    last = growths[-1] if growths else first
    concepts: str = first.identity.get(CONCEPTS, "")
    known = dict.fromkeys(first.classes, concepts)
    for growth in growths:
        known |= dict.fromkeys(growth.learned, growth.concepts)
        concepts = growth.concepts
    earlier = {name: digest for name, digest in known.items() if digest != concepts}
    return Learned(concepts, earlier, last.names, tuple(last.suffixes))


def source_of(history: History, source: Source, season: int) -> Source:
    """The source as it was in a season; `source` is that of the newest."""
    if season >= len(history.growths):
        return source
    classes = history.growths[season - 1].classes if season else _first_classes(history)
    return replace(source, classes=tuple(classes), images=source.images[: history.growths[season].before])


def growths_of(history: History, source: Source, season: int) -> list[Growth]:
    """How the seasons before one ended; `source` is that of the newest."""
    found: list[Growth] = []
    for number, growth in enumerate(history.growths[:season]):
        images = tuple(len(of) for of in source_of(history, source, number).by_class)
        found.append(Growth(images, tuple(history.waves[growth.waves - 1].stops) if growth.waves else ()))
    return found


def fitted(known: Source, scanned: Source, url: str) -> tuple[Source, Source | None]:
    """The source that the data set at `url` knows, where it is now; and that with what is new, if anything is.

    Raises OutputError when an image that is known is not there any more, or under another class.
    """
    there = {image.sha256: (scanned.classes[image.label], image) for image in scanned.images}
    gone = [image for image in known.images if there.get(image.sha256, ("",))[0] != known.classes[image.label]]
    if gone:
        raise OutputError(
            f"{url} was made from another source: {len(gone)} of the {len(known.images)} images that it knows are not "
            f"in {scanned.url} any more, or in another class, such as {gone[0].where}. A source may grow; where images "
            "go, choose another output (--fork takes along what still fits)"
        )
    images = tuple(replace(there[image.sha256][1], label=image.label) for image in known.images)
    same = replace(known, url=scanned.url, images=images, skipped=scanned.skipped, notes=scanned.notes)
    hashes = {image.sha256 for image in images}
    new = [image for image in scanned.images if image.sha256 not in hashes]
    if not new:
        return same, None
    classes = (*known.classes, *(name for name in scanned.classes if name not in known.classes))
    label = {name: number for number, name in enumerate(classes)}
    added = [replace(image, label=label[scanned.classes[image.label]]) for image in new]
    added.sort(key=lambda image: (image.label, image.sha256))
    return same, replace(same, classes=classes, images=(*images, *added))


def news(known: Source, grown: Source) -> tuple[tuple[SourceImage, ...], tuple[str, ...]]:
    """The images that a source has gained, and its classes that had none before."""
    empty = {name for name, images in zip(known.classes, known.by_class, strict=True) if not images}
    new = grown.images[len(known.images) :]
    begun = {grown.classes[image.label] for image in new} - (set(known.classes) - empty)
    return new, tuple(name for name in grown.classes if name in begun)


def _first_classes(history: History) -> list[str]:
    return history.opening.classes if history.opening is not None else []
