"""Many contexts -> the few suffixes that all classes share (Diff-II, section 3.3), by a fixed rule and offline.

Contexts of one doing and one place are one group; the group's most frequent wording stands for it. Groups are taken
in turn, the frequent first, but one that shares its words with those taken already counts for less.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from diffii.contexts import words as w

LIMIT = 10
"""The paper's number of suffixes for a data set."""
_LIKENESS = 0.7
"""What a context loses of its count when its words are those of a chosen one; 1 would never take it."""


def condense(contexts: Iterable[str], limit: int = LIMIT) -> list[str]:
    """At most `limit` frequent and mutually different contexts, the best first, whatever the order of the input.

    Empty contexts are passed over; none but those give an empty list. Raises ValueError for a limit below 1.
    """
    if limit < 1:
        raise ValueError(f"a data set has at least one suffix, got a limit of {limit}")
    counts = Counter(text for text in (" ".join(w.tokens(context)) for context in contexts) if text)
    groups: dict[tuple[str, str], dict[str, int]] = {}
    for text, count in counts.items():
        groups.setdefault(group_of(text), {})[text] = count
    # One entry per group: its wording, its weight.
    weights = {
        min(texts, key=lambda text: (-texts[text], len(text), text)): sum(texts.values()) for texts in groups.values()
    }
    chosen: list[str] = []
    while weights and len(chosen) < limit:
        best = min(weights, key=lambda text: (-_value(text, weights[text], chosen), len(text), text))
        chosen.append(best)
        del weights[best]
    return chosen


def group_of(context: str) -> tuple[str, str]:
    """What makes two contexts nearly the same: the doing, if it moves, and the head word of the first place.

    `sitting on a tree branch` and `perched on a branch` -> ("", "branch"); `flying over the water` -> ("flying",
    "water").
    """
    tokens = w.tokens(context)
    motion = next((token for token in tokens if w.is_motion(token)), "")
    opened = next((i for i, token in enumerate(tokens) if token in w.PLACES or token in w.WITH), None)
    if opened is None:
        return motion, " ".join(w.stem(token) for token in tokens if w.is_content(token))
    head = ""
    for token in tokens[opened:]:
        if head and not w.is_content(token):
            break
        if w.is_content(token):
            head = token
    return motion, w.stem(head)


def _value(text: str, weight: int, chosen: list[str]) -> float:
    return weight * (1.0 - _LIKENESS * max((_shared(text, other) for other in chosen), default=0.0))


def _shared(one: str, other: str) -> float:
    """Common content words as a part of all (Jaccard), in [0, 1]."""
    first, second = ({w.stem(token) for token in w.tokens(text) if w.is_content(token)} for text in (one, other))
    return len(first & second) / max(1, len(first | second))
