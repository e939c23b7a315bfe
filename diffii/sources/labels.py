"""Labels by index and by name: what the rows of a list or the samples of a tar say, brought to one set of classes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from diffii.errors import SourceError
from diffii.sources.interface import NO_LABEL, Entry, Listing

MAX_CLASSES = 1_000_000
"""A class that is missing from the source keeps its place below the largest index, so an index is bounded."""

Told = tuple[int | None, str | None]
"""What one image says of its class: its index, its name, either or both."""


def as_index(value: Any) -> int | None:
    """A class's number, from a number or its digits; None for anything else."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        return value
    if isinstance(value, float) and value.is_integer():
        return int(value)
    text = value.strip() if isinstance(value, str) else ""
    return int(text) if text.isascii() and text.isdigit() and len(text) < 12 else None


def resolve(told: Sequence[Told], url: str) -> tuple[tuple[str, ...], list[int | None]]:
    """Class names, and each image's label into them; None where it has none.

    Indices with names keep their places, and a class that no image shows is called by its number; indices alone, and
    names alone, are classes in natural order. Raises SourceError when one index has two names, or two have one.
    """
    names: dict[int, str] = {}
    for index, name in told:
        if index is None or name is None or index < 0:
            continue
        if names.setdefault(index, name) != name:
            raise SourceError(f"{url}: label {index} is called both {names[index]!r} and {name!r}; give it one name")
    if not names:
        said = [name if name is not None else None if index is None else str(index) for index, name in told]
        classes = tuple(sorted({name for name in said if name is not None}, key=natural))
        place = {name: number for number, name in enumerate(classes)}
        return classes, [None if name is None else place[name] for name in said]
    top = max(*names, *(index for index, _ in told if index is not None))
    if top >= MAX_CLASSES:
        raise SourceError(f"{url}: label {top} is more than the limit of {MAX_CLASSES} classes")
    classes = apart([names.get(index, str(index)) for index in range(top + 1)], url)
    place = {name: number for number, name in enumerate(classes)}
    return classes, [_label(index, name, place) for index, name in told]


def apart(names: Sequence[str], url: str) -> tuple[str, ...]:
    """The names as classes. Raises SourceError when two have one name: concepts and prompts know classes by theirs."""
    first: dict[str, int] = {}
    for number, name in enumerate(names):
        if first.setdefault(name, number) != number:
            raise SourceError(
                f"{url}: labels {first[name]} and {number} are both called {name!r}; give each its own name"
            )
    return tuple(names)


def _label(index: int | None, name: str | None, place: dict[str, int]) -> int | None:
    if index is not None:
        return index if index >= 0 else None
    return None if name is None else place.get(name)


def listed(rows: Sequence[tuple[str, Any, str, str]], names: Sequence[str] | None, url: str) -> Listing:
    """What a table with one label column holds: rows are (place, value of the column, caption, context).

    With `names` a value is an index or one of them; without, the values are the classes, in natural order. Raises
    SourceError when two of `names` are one.
    """
    classes = apart(names or sorted({str(value) for _, value, _, _ in rows if value is not None}, key=natural), url)
    index = {name: number for number, name in enumerate(classes)}
    listing = Listing(classes)
    for where, value, caption, context in rows:
        label = value if names and isinstance(value, int) else index.get(str(value), -1)
        # A class may be called `None`.
        if value is not None and 0 <= label < len(classes):
            listing.entries.append(Entry(where, label, caption, context))
        else:
            listing.skipped.append((where, NO_LABEL))
    return listing


def natural(text: str) -> tuple[bool, int, str]:
    # The text itself comes last, so that `7` and `07` have one order, whatever the order of a set.
    return (False, int(text), text) if text.isdecimal() else (True, 0, text)


def names_in(features: Any, column: str) -> list[str] | None:
    """Class names in the features that `datasets` writes beside its data; None when there are none."""
    try:
        found = features[column]["names"]
    except (KeyError, TypeError):
        return None
    return [str(name) for name in found] if isinstance(found, Iterable) and not isinstance(found, str) else None
