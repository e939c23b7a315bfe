"""A caption without its subject is a context: `a small bird sitting on a branch` -> `sitting on a branch`.

The subject is found by the words that the data set has for it (class names, metaclass), else by words that many
captions have for it; what describes it (`with a red head`, `wearing a collar`, `on its wings`) goes with it. What is
left begins at a place (`on`, `in front of`) or a doing (`sitting`, `parked`). Everything is a fixed rule over words.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from diffii.contexts import words as w


@dataclass(frozen=True, slots=True)
class SubjectWords:
    """The words by which one data set's captions may name its subjects."""

    nouns: frozenset[str]
    """Single words, singular and plural, of all classes; a context that has one of them is none."""
    theme: frozenset[str] = frozenset()
    """The metaclass's words and what captioners call such things."""

    @classmethod
    def of(cls, class_names: Iterable[str], metaclass: str = "") -> SubjectWords:
        """From all classes' words (`Black footed Albatross`: its last word counts) and the data set's theme."""
        heads = {head for name in class_names if (head := _head(name))}
        theme = {head} if (head := _head(metaclass)) else set()
        for family in w.FAMILIES:
            if theme & family:
                theme = theme | family
        return cls(_with_plurals(heads), _with_plurals(theme))


def context_of(caption: str, subjects: SubjectWords) -> str:
    """The context of a caption in lower case; empty when it has none."""
    tokens = _without_frame(w.tokens(caption))
    known = next((words for words in (subjects.nouns | subjects.theme, w.GENERIC) if words & set(tokens)), frozenset())
    after = next((i + 1 for i, token in enumerate(tokens) if token in known), 0)
    context = _context(tokens, after)
    if not context and after:
        # `a corgi sitting on a dog bed`: the first word that is known was not the subject's.
        context = _context(tokens, 0)
        if subjects.theme & set(context) and not _compound(context, subjects.theme):
            return ""
    return " ".join(_without_others(context, subjects.nouns))


def _context(tokens: list[str], start: int) -> list[str]:
    """The tokens from the first one at or after `start` that opens a context."""
    for i in range(start, len(tokens)):
        if _opens(tokens, i):
            found = [w.FINITE.get(tokens[i], tokens[i]), *tokens[i + 1 :]]
            return _without_tail(_without_repeats(found))
    return []


def _opens(tokens: list[str], i: int) -> bool:
    token, following = tokens[i], tokens[i + 1 : i + 3]
    before = tokens[i - 1] if i else ""
    if token in w.WITH:
        # `with trees in the background` is around the subject, `with a red head` is of it.
        return tokens[-1] in w.SURROUNDINGS
    if token in w.PLACES:
        of_itself = bool(following) and (
            following[0] in w.POSSESSIVES or following[0] in w.PARTS or following[-1] in w.PARTS
        )
        if token in w.PAIRED and not w.PLACES_SECOND & set(following[:1]):
            return False
        return (bool(following) or token in w.ALONE) and not of_itself
    if token in w.FINITE or token in w.STATES:
        return before not in w.ARTICLES
    # `a flying bird`, `the rising sun`: a doing that follows an article describes.
    return w.is_doing(token) and token not in w.ATTRIBUTES and before not in w.ARTICLES


def _without_others(context: list[str], nouns: frozenset[str]) -> list[str]:
    """Cut before the `with` that brings another subject in (`in a tree with a sparrow`); else nothing is left."""
    other = next((i for i, token in enumerate(context) if token in nouns), None)
    if other is None:
        return context
    return context[: max((i for i, token in enumerate(context[:other]) if token in w.WITH), default=0)]


def _compound(context: list[str], theme: frozenset[str]) -> bool:
    """Is each word of the theme in it followed by the noun that it describes, as in `on a dog bed`?"""
    places = [i for i, token in enumerate(context) if token in theme]
    return all(i + 1 < len(context) and w.is_content(context[i + 1]) for i in places)


def _without_frame(tokens: list[str]) -> list[str]:
    """Without what is said of the picture: `there is`, `a close up photo of`, `this picture shows`."""
    if tokens[:1] and tokens[0] in w.POINTERS and tokens[1:2] and tokens[1] in w.COPULAS:
        tokens = tokens[2:]
    end = next((i for i, token in enumerate(tokens) if token in w.SHOWING), None)
    before = tokens[:end] if end is not None else []
    # Only adjectives may stand before: `a bird sitting on a picture of a tree` keeps its beginning.
    if w.PICTURES & set(before) and not any(token in w.PLACES or w.is_doing(token) for token in before):
        return _without_frame(tokens[len(before) + 1 :])
    return tokens


def _without_repeats(tokens: list[str]) -> list[str]:
    """Without the stutter of small captioners: `on a branch on a branch` says it once."""
    for size in range(len(tokens) // 2, 0, -1):
        for i in range(len(tokens) - 2 * size + 1):
            if tokens[i : i + size] == tokens[i + size : i + 2 * size]:
                return _without_repeats(tokens[: i + size] + tokens[i + 2 * size :])
    return tokens


def _without_tail(tokens: list[str]) -> list[str]:
    """Without an end that says nothing alone: `on a table with a plate on it`, `in a field and the`."""
    text = " ".join(tokens)
    for tail in w.TAILS:
        text = text.removesuffix(tail).strip()
    tokens = text.split()
    for i, token in enumerate(tokens[:-1]):
        # `in the snow with its tongue out`: the subject again.
        if token in w.WITH and tokens[i + 1] in w.POSSESSIVES:
            tokens = tokens[:i]
            break
    while tokens and (tokens[-1] in w.PRONOUNS or not w.may_end(tokens[-1], "".join(tokens[-2:-1]))):
        last = tokens.pop()
        if last in w.PRONOUNS:
            while tokens and not w.is_content(tokens[-1]):
                tokens.pop()
    return tokens


def _head(name: str) -> str:
    letters = [word for word in re.split(r"[^a-z]+", name.lower()) if len(word) > 2]
    return letters[-1] if letters else ""


def _with_plurals(nouns: Iterable[str]) -> frozenset[str]:
    found: set[str] = set()
    for noun in nouns:
        plural = f"{noun[:-1]}ies" if re.search(r"[^aeiou]y$", noun) else f"{noun}es"
        found |= {noun, f"{noun}s", plural} if not noun.endswith("s") else {noun, noun.removesuffix("s")}
    return frozenset(found)
