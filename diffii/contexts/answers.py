"""What a language model answers -> suffixes, or an error: nothing else may get into a prompt."""

from __future__ import annotations

import json
import re

from diffii.errors import ModelError

_MOST_WORDS, _MOST_LETTERS = 16, 120
_MARK = re.compile(r"^(?:[-*\u2022]|\d{1,3}[.):])\s+")
_FENCE = re.compile(r"\A```[a-z]*\s*\n(.*)\n```\Z", re.DOTALL)


def parse_suffixes(answer: str, limit: int, who: str) -> list[str]:
    """The suffixes of an answer: a JSON list of strings, or one a line, also in a code fence, numbered or dashed.

    Repeated ones are passed over and those beyond `limit` left out. Raises ModelError, naming `who` answered, for
    anything else: prose, an empty list, a line too long to be a suffix.
    """
    text = answer.strip()
    if fenced := _FENCE.match(text):
        text = fenced[1].strip()
    found: dict[str, None] = {}
    for entry in _entries(text, who):
        suffix = " ".join(entry.split()).strip("\"'\u201c\u201d").rstrip(".,;").strip()
        if (
            not any(map(str.isalpha, suffix))
            or len(suffix) > _MOST_LETTERS
            or len(suffix.split()) > _MOST_WORDS
            or not suffix.isprintable()
        ):
            raise _strange(who, f"{entry[:60]!r} is no suffix")
        if suffix.endswith(":"):
            raise _strange(who, f"{entry[:60]!r} is talk around the list")
        found[suffix[0].lower() + suffix[1:]] = None
    if not found:
        raise _strange(who, "it is empty")
    return list(found)[:limit]


def _entries(text: str, who: str) -> list[str]:
    if not text.startswith(("[", "{")):
        return [_MARK.sub("", line.strip()) for line in text.splitlines() if line.strip()]
    try:
        found = json.loads(text)
    except ValueError as error:
        raise _strange(who, f"it begins as JSON and is none: {error}") from error
    if not isinstance(found, list) or not all(isinstance(entry, str) for entry in found):
        raise _strange(who, "it is JSON but no list of texts")
    return found


def _strange(who: str, why: str) -> ModelError:
    return ModelError(
        f"captions.endpoint: the answer of {who} is no list of suffixes ({why}); try again, take another model, or "
        "condense without a service: captions.condense=rule"
    )
